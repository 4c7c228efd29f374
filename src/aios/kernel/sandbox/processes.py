"""The processes of this machine: who is below whom, who bears a mark, who has ended; signals that hurt nobody when they come late."""

import os
import re
import secrets
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "AIOS_RUN"
"""A variable by which what has left its session is known: pid and namespace of pids of the kernel that started it, and a word of its own."""
MAX_LOOKS = 10
STILL = "TtZXx"
"""States of threads that do nothing: stopped, or over."""
_KERNEL = re.compile(r"(?P<pid>[1-9][0-9]{0,8})\.(?P<namespace>[0-9]{0,20})")
"""Not all that counts as digits: a program may put anything into its own environment."""


def new_mark() -> str:
    """A mark for what this kernel starts next."""
    return f"{os.getpid()}.{_namespace()}-{secrets.token_hex(8)}"


def _namespace() -> str:
    """That in which our pid is ours: a kernel in a container has another, and its processes are in our `/proc` too."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return ""


def descendants(pid: int) -> list[int]:
    """All living processes below one, as the operating system has them."""
    found, to_see = [], [pid]
    while to_see:
        parent = to_see.pop()
        for tasks in _task_folders(parent):
            with suppress(OSError):
                children = [int(child) for child in (tasks / "children").read_text().split()]
                found += children
                to_see += children
    return found


def marked(mark: str) -> set[int]:
    """The processes with a mark in their environment.

    What goes on in a child and ends slips through a look, so it is looked again where something was started meanwhile.
    Cost: reads a file for each process of this machine, about 10 us each, up to `MAX_LOOKS` times.
    """
    seen = set[int]()
    for _ in range(MAX_LOOKS):
        n_started = _n_started()
        seen |= {pid for pid, found in _marks() if found == mark}
        if _n_started() == n_started:
            break
    return seen


def sweep() -> int:
    """Kill what kernels started that were themselves killed since. Returns: how many processes.

    `bwrap` ends with its kernel, but for one gap: its child waits for ever for a parent that was killed between `clone` and its
    first word. A program behind Landlock has nobody who ends it. What bears our own mark is spared: a program of a kernel that is gone started us.
    """
    n_swept, own, namespace = 0, os.environ.get(MARK), _namespace()
    for pid, mark in _marks():
        kernel = _KERNEL.fullmatch(mark.partition("-")[0])
        if mark == own or kernel is None or kernel["namespace"] != namespace:
            continue
        if not is_alive(int(kernel["pid"])):
            send(pid, signal.SIGKILL)
            n_swept += 1
    return n_swept


def is_alive(pid: int) -> bool:
    """Whether there is such a process, ours or another's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's by now
    return True


def is_still(pid: int) -> bool:
    """Whether all threads of a process are stopped, or over but for its parent. One that is gone may have left a child, so it is not."""
    tasks = _task_folders(pid)
    try:
        stats = [(task / "stat").read_text() for task in tasks]
    except OSError:
        return False
    return bool(tasks) and all(stat.rpartition(")")[2].split()[0] in STILL for stat in stats)


def _marks() -> Iterator[tuple[int, str]]:
    prefix = f"{MARK}=".encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError), open(f"/proc/{entry.name}/environ", "rb") as file:  # noqa: PTH123 - a path object each costs more than the read
                for variable in file.read().split(b"\0"):
                    if variable.startswith(prefix):
                        yield int(entry.name), os.fsdecode(variable.removeprefix(prefix))


def _n_started() -> bytes:
    """How many processes were started on this machine since its start, as the operating system says it."""
    with suppress(OSError), open("/proc/stat", "rb") as file:  # noqa: PTH123 - as above
        return file.read().partition(b"\nprocesses ")[2].partition(b"\n")[0]
    return b""


def _task_folders(pid: int) -> list[Path]:
    with suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []


def has_ended(pidfd: int) -> bool:
    """Whether a process has, by its file; the first of a namespace ends last."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    return bool(ended.poll(0))


def send(pid: int, number: signal.Signals) -> None:
    """A signal to one process, if it is still there and ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """SIGKILL to the group of processes that one leads, if it is still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def n_own_processes() -> int:
    """How many processes this user runs on this machine."""
    uid = os.getuid()
    n_found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            n_found += folder.stat().st_uid == uid
    return n_found
