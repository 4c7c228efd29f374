"""Which walls this machine offers, found by building them once; and what is open where they are missing."""

import platform
import shutil
import subprocess
from enum import Enum

import msgspec
from msgspec import Struct

from aios.kernel.sandbox.cgroup import ControlGroups, find_groups
from aios.kernel.sandbox.confine import version
from aios.kernel.sandbox.processes import sweep
from aios.kernel.sandbox.scratch import hidden_base, sweep_folders
from aios.kernel.sandbox.seccomp import MACHINES

TRIAL_S = 5
"""A trial takes 20 ms; one that hangs is no sandbox."""
TRIAL = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
    *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
    *("--size", "4096", "--tmpfs", "/tmp"),  # noqa: S108 - a path inside
    *("--", "/bin/true"),
)


class Wall(Enum):
    """What stands between a program and the machine, from the strongest down."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    NONE = "none"


class Walls(Struct, frozen=True):
    """What this machine offers.

    Attributes:
        wall: The strongest that works here.
        bwrap: Where bubblewrap is.
        landlock: The version of Landlock; 0: none.
        groups: Where control groups can be made.
        missing: What is open, a sentence each, with how to mend it.
    """

    wall: Wall
    bwrap: str = ""
    landlock: int = 0
    groups: ControlGroups | None = None
    missing: tuple[str, ...] = msgspec.field(default_factory=tuple)


def probe(mode: str = "auto") -> Walls:
    """Look what works here, and sweep what killed kernels left: processes and folders. Takes about 30 ms.

    Args:
        mode: `auto`, or the name of a `Wall` to look for that one alone.
    """
    sweep()  # first: a folder or a group goes only when its processes have
    sweep_folders()
    sweep_folders(hidden_base())
    groups = find_groups()
    missing = [] if groups else [NO_GROUPS]
    if mode == Wall.NONE.value or platform.machine() not in MACHINES:
        return Walls(Wall.NONE, groups=groups, missing=(NO_WALL, *missing))
    bwrap, why = _find_bubblewrap()
    if bwrap and mode in ("auto", Wall.BUBBLEWRAP.value):
        return Walls(Wall.BUBBLEWRAP, bwrap, version(), groups, tuple(missing))
    if version() and mode in ("auto", Wall.LANDLOCK.value):
        older = (text for since, text in OLDER if version() < since)
        why = why or CHOSEN
        return Walls(Wall.LANDLOCK, bwrap, version(), groups, (why, WEAKER, *older, *missing))
    meaning = NO_WALL if mode == "auto" else NOT_STARTED.format(mode)
    return Walls(Wall.NONE, bwrap, version(), groups, (why or NO_LANDLOCK, meaning, *missing))


NO_WALL = "programs run without a sandbox: they read and write whatever you can"
NOT_STARTED = "no program is started, for `sandbox.mode` asks for {}"
NO_GROUPS = (
    "memory and processes are bounded one by one, not together: no control group can be made here"
)
CHOSEN = "bubblewrap works here, but `sandbox.mode` asks for Landlock"
NO_LANDLOCK = "this kernel of the operating system has no Landlock (Linux 5.13 or later has)"
WEAKER = "under Landlock a program sees that other processes exist, may connect to Unix sockets that have a path, and may change Python and AIOS where they lie in its workspace"
OLDER = (
    (3, "under Landlock before Linux 6.2 a program may empty files wherever they lie"),
    (
        6,
        "under Landlock before Linux 6.12 a program may signal your other processes and speak to abstract sockets",
    ),
)
"""By the version of Landlock since which it is not so."""


def _find_bubblewrap() -> tuple[str, str]:
    """Where it is, and why it does not work if so."""
    path = shutil.which("bwrap")
    if path is None:
        return "", "bubblewrap is not installed: `apt install bubblewrap`, `dnf install bubblewrap`"
    try:
        done = subprocess.run([path, *TRIAL], capture_output=True, timeout=TRIAL_S, check=False)  # noqa: S603 - found in PATH, with words of ours
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"bubblewrap cannot be run: {error}"
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        return (
            "",
            f"bubblewrap makes no sandbox here ({said}): allow user namespaces, or update it to 0.8",
        )
    return path, ""
