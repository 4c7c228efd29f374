"""From what a user types to a process (a pid, a name, or the unique beginning of a name), and to all below it."""

from collections.abc import Sequence

from aios.abi.types import Pid, ProcessInfo
from aios.cli.exits import Outcomes
from aios.errors import InvalidCall, NotFound

MAX_CANDIDATES = 10
MAX_PID_DIGITS = 18


def find_process(reference: str, processes: Sequence[ProcessInfo]) -> ProcessInfo:
    """The process that a reference means.

    An exact pid comes first, then an exact name, then the beginning of one name. A living process comes before an
    ended one of the same name, a younger ended one before an older.

    Raises:
        InvalidCall: Several names begin so; the message lists them.
        NotFound: There is none.
    """
    by_pid = [p for p in processes if str(p.pid) == reference]
    if by_pid:
        return by_pid[0]
    named = [p for p in processes if p.name == reference]
    if named:
        return max(named, key=_preference)
    begun = [p for p in processes if reference and p.name.startswith(reference)]
    begun = [p for p in begun if p.exit is None] or begun
    if len({p.name for p in begun}) > 1:
        raise InvalidCall(
            f"{reference!r} is ambiguous: {_listed(begun)}", hint="give the pid or the whole name"
        )
    if not begun:
        raise NotFound(f"no process {reference!r}", hint="`aios ps --all` lists them")
    return max(begun, key=_preference)


def as_pid(reference: str) -> Pid | None:
    """The pid that a reference is, also of a process that no table knows any more; None if it is no number that a pid can be."""
    is_pid = reference.isdecimal() and len(reference) <= MAX_PID_DIGITS
    return Pid(int(reference)) if is_pid else None


def find_processes(
    references: Sequence[str], processes: Sequence[ProcessInfo], outcomes: Outcomes
) -> list[ProcessInfo]:
    """The processes that the references mean; one that means none is told and left out.

    `processes` holds ended ones also for `kill`: "has exited with status 0" helps more than "no process".
    """
    found = []
    for reference in references:
        with outcomes.each():
            found.append(find_process(reference, processes))
    return found


def find_again(process: ProcessInfo, processes: Sequence[ProcessInfo]) -> ProcessInfo:
    """The same process under a kernel that came later.

    Raises:
        NotFound: The kernel before kept no processes, so pids began anew, or it was forgotten since.
    """
    for each in processes:
        if (each.pid, each.started_unix_s) == (process.pid, process.started_unix_s):
            return each
    raise NotFound(
        f"the kernel that runs now knows nothing of process {process.pid} ({process.name})",
        hint="a kernel inside a command, or with `journal.is_on = false`, leaves no processes to the next",
    )


def _preference(process: ProcessInfo) -> tuple[bool, int]:
    return process.exit is None, process.pid


def _listed(processes: Sequence[ProcessInfo]) -> str:
    shown = ", ".join(f"{p.name} ({p.pid})" for p in processes[:MAX_CANDIDATES])
    n_more = len(processes) - MAX_CANDIDATES
    return f"{shown} and {n_more} more" if n_more > 0 else shown


def family(processes: Sequence[ProcessInfo], pids: set[Pid]) -> list[ProcessInfo]:
    """The processes of that set and their descendants, which are added to it."""
    for process in sorted(processes, key=lambda p: p.pid):
        if process.ppid in pids:
            pids.add(process.pid)
    return [process for process in processes if process.pid in pids]
