"""Who made a version: the folder of a process, or one of three words. Pure."""

OWNER = "owner"
"""Init, as whom the owner's commands come."""
OUTSIDE = "outside"
"""Another program, which changed a real file; no process made the version."""
KERNEL = "kernel"
"""The kernel itself, as when files of a mount that is taken away are listed no more."""
OWNER_HOME = "/"
"""What is stored for the owner: the folder of init, which holds all others."""


def author_shown(home: str) -> str:
    """The author of a version, as readers are told; others than the owner are stored as they are shown."""
    return OWNER if home == OWNER_HOME else home
