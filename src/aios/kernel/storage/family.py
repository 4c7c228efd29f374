"""Which processes descend from one, told by their folders: also after it has ended, when its living children are init's.

The folder of a process lies in that of the one that started it, pids only grow, and two living processes never have the same folder. So the parent of
a process is the newest one before it that has the folder around its own:

    5 /agents/ann    6 /agents/ann/kid    9 /agents/ann    11 /agents/ann/kid-11    12 /agents/ann/kid/toy
    12 is a child of 6 and so of 5, although 9 has the name of 5 by then; 11 is a child of 9

The process table forgets who ended long ago. Those that changed a file are known by their versions; of others nothing is to be found but, it may be, children,
and these are counted to the next folder up.
"""

from collections.abc import Collection, Mapping

import apsw

from aios.abi.types import Pid
from aios.errors import InvalidCall
from aios.kernel.lineage import AGENTS, home_of
from aios.kernel.process import INIT_PID, Process
from aios.kernel.storage.paths import ancestors


def family_of(pid: int, homes: Mapping[int, str]) -> frozenset[int]:
    """A process and all that descend from it; `homes` has the folder of each process by its pid."""
    found = {pid}
    newest: dict[str, int] = {}
    for each, home in sorted(homes.items()):
        parent = next((newest[above] for above in ancestors(home) if above in newest), None)
        if parent in found:
            found.add(each)
        newest[home] = each
    return frozenset(found)


def find_family(
    connection: apsw.Connection, pid: Pid, *, boots: tuple[int, int], table: Collection[Process]
) -> frozenset[int]:
    """As `family_of`, of the processes that are remembered; the versions of these kernels, from the first to the last, tell of others.

    Raises:
        InvalidCall: It is init, from which all descend.
    """
    if pid == INIT_PID:
        raise InvalidCall(
            f"all processes descend from {pid}", hint="name one of them, or roll back a path"
        )
    rows = connection.execute(
        "SELECT pid, max(author) FROM versions WHERE boot BETWEEN ? AND ? AND pid > ? GROUP BY pid",
        (*boots, INIT_PID),
    )
    known: dict[int, str] = {
        each: author for each, author in rows if author.startswith(f"/{AGENTS}/")
    }
    known.update((each.pid, home_of(each.lineage)) for each in table)
    return family_of(pid, known)
