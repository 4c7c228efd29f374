"""Control groups: bounds on all processes of a program together, where this user may make groups.

Version 2 (one tree; a group beside the kernel's own, as systemd delegates it to a desktop's user) or version 1 (a tree for
each of `pids`, `memory`, `cpu`). A group also gets the processor as one: a program with hundreds of processes gets as much as another with one. Where neither can be written there is no group, and `probe.py` says what that leaves open.
"""

import os
import re
from contextlib import suppress
from itertools import count
from pathlib import Path

from msgspec import Struct

from aios.kernel.sandbox.processes import is_alive
from aios.kernel.sandbox.profile import Bounds

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
CONTROLLERS = ("memory", "pids")
NAME = re.compile(r"aios-(?P<pid>\d+)-\d+(?!\n)$")
"""Of a group: the pid of the kernel that made it, and a number."""
_NUMBERS = count(1)
"""One sequence for all of this process: two launchers share the folders."""


class ControlGroup(Struct, frozen=True):
    """One program's group: a folder in each tree that has one."""

    folders: tuple[Path, ...]

    @property
    def doors(self) -> tuple[Path, ...]:
        """The files by which a process is put in: its number is written to each, or 0 by itself."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    def add(self, pid: int) -> None:
        """Put a process in; what it starts from then on is in too."""
        for door in self.doors:
            door.write_text(str(pid))

    def pids(self) -> list[int]:
        """The processes in it."""
        with suppress(OSError):
            return [int(pid) for pid in self.doors[0].read_text().split()]
        return []

    def remove(self) -> bool:
        """Take it away. Returns: whether it is gone; what still ends in it holds it for a moment, and shows no more in `pids`."""
        for folder in self.folders:
            with suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self.folders)


class ControlGroups:
    """Where groups can be made; makes them.

    Args:
        parents: A folder in each tree, by version; see `find_parents`.
        is_v2: Whether it is the one tree of version 2.
    """

    def __init__(self, parents: tuple[Path, ...], *, is_v2: bool) -> None:
        self._parents = parents
        self._is_v2 = is_v2

    def make(self, bounds: Bounds) -> ControlGroup | None:
        """A new, empty group with these bounds; None where none can be made."""
        name = self._free_name()
        folders = []
        try:
            for parent in self._parents:
                folder = parent / name
                folder.mkdir()
                folders.append(folder)
                self._bound(folder, bounds)
        except OSError:
            ControlGroup(tuple(folders)).remove()
            return None
        return ControlGroup(tuple(folders)) if folders else None

    def _free_name(self) -> str:
        """Of no group: what a kernel before left may have the name of one, if it had our pid (in a container it has)."""
        names = (f"aios-{os.getpid()}-{number}" for number in _NUMBERS)
        return next(
            name for name in names if not any((parent / name).exists() for parent in self._parents)
        )

    def sweep(self) -> int:
        """Take away the empty groups of kernels that were killed before they could. Returns: how many folders.

        A group with processes in it stays: it cannot be taken away.
        """
        n_swept = 0
        for parent in self._parents:
            for folder in parent.glob("aios-*-*"):
                named = NAME.match(folder.name)
                if named is not None and not is_alive(int(named["pid"])):
                    with suppress(OSError):
                        folder.rmdir()
                        n_swept += 1
        return n_swept

    def _bound(self, folder: Path, bounds: Bounds) -> None:
        # A process that a limit kills says so by its exit; swap would only make a memory bomb slower.
        values = {"pids.max": bounds.n_processes}
        if self._is_v2:
            values |= {
                "memory.max": bounds.memory_bytes,
                "memory.swap.max": 0,
                "memory.oom.group": 1,
            }
        else:
            values |= {"memory.limit_in_bytes": bounds.memory_bytes}
        for knob, value in values.items():
            if (folder / knob).exists():
                (folder / knob).write_text(str(value))


def hasten(*, root: Path = ROOT, own: Path = OWN) -> bool:
    """Have the operating system ready to move a process into a group.

    The first move for a while waits 10 to 20 ms until every processor has been seen to do something else (RCU); those soon after it take
    0.3. So this process is moved to where it is.

    Returns: Whether it could be.
    """
    lines: list[str] = []
    with suppress(OSError):
        lines = own.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        procs = root / controllers.split(",", maxsplit=1)[0] / path.lstrip("/") / "cgroup.procs"
        with suppress(OSError), procs.open("r+") as file:  # no file is made where there is none
            file.write(str(os.getpid()))
            return True
    return False


def find_groups(*, root: Path = ROOT, own: Path = OWN) -> ControlGroups | None:
    """Where this process may make groups, found by making one; None where it may not.

    What killed kernels left there is swept.
    """
    for parents, is_v2 in ((_parent_v2(root, own), True), (_parents_v1(root), False)):
        if parents:
            groups = ControlGroups(parents, is_v2=is_v2)
            tried = groups.make(Bounds())
            if tried is not None:
                tried.remove()
                groups.sweep()
                return groups
    return None


def _parent_v2(root: Path, own: Path) -> tuple[Path, ...]:
    """The folder above our own group, when it hands both controllers on to its children."""
    with suppress(OSError):
        path = next(
            (line[3:] for line in own.read_text().splitlines() if line.startswith("0::/")), "/"
        )
        parent = (root / path.lstrip("/")).parent if path != "/" else root
        handed_on = (parent / "cgroup.subtree_control").read_text().split()
        if all(controller in handed_on for controller in CONTROLLERS):
            return (parent,)
    return ()


def _parents_v1(root: Path) -> tuple[Path, ...]:
    found = tuple(root / name for name in CONTROLLERS if (root / name / "tasks").exists())
    processors = root / "cpu"  # of version 2 it comes with the others where it is handed on
    is_ours = found and (processors / "tasks").exists() and os.access(processors, os.W_OK)
    return (*found, processors) if is_ours else found
