"""What no program is given, or may change: the kernel's own state and code, and the user's keys."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from aios.configfile import file_path
from aios.errors import ProgramFailed
from aios.kernel.sandbox.places import python_links, python_places
from aios.kernel.sandbox.profile import Profile, is_within

SECRETS = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".netrc", ".pgpass", ".pypirc",
    ".npmrc", ".git-credentials", ".password-store", ".mozilla", ".config/google-chrome", ".local/share/keyrings",
)  # fmt: skip
"""Keys and passwords below the user's home, hidden even where a program may see what is around them."""
STATE = ("tools", "policies", "run", "logs", "contexts", "pages", "blobs", "models")
"""Folders of the kernel's home whose content it obeys, or which hold what is of others; every file beside them is state as well."""
SEEN = ("tools", "models")
"""Of these, what may be read: the programs of tools lie there, and models are no secret."""


def key_places() -> list[Path]:
    """Where this user keeps keys; real paths, for those of profiles are."""
    home = Path.home()
    places = [f"{home}/{name}" for name in SECRETS]
    return [Path(place).resolve() for place in places if os.path.exists(place)]  # noqa: PTH110 - each start looks for all of them


class State(Struct, frozen=True):
    """Where the kernel keeps its state.

    Attributes:
        home: Its home, a real path.
        kept: What no program may change.
        unseen: Of that, what none may read.
    """

    home: Path
    kept: tuple[Path, ...]
    unseen: tuple[Path, ...]

    @property
    def elsewhere(self) -> list[Path]:
        """What none may read and does not lie in the home: a symlink leads to it."""
        return [path for path in self.unseen if not is_within(path, self.home)]


def state_of(home: Path) -> State:
    """What is kept in a home now. Cost: 0.1 ms."""
    kept: dict[Path, bool] = {}
    with suppress(FileNotFoundError), os.scandir(home) as entries:
        for entry in entries:
            if entry.name in STATE or not entry.is_dir():
                path = Path(entry.path)
                kept[path.resolve() if entry.is_symlink() else path] = entry.name in SEEN
    return State(home, tuple(kept), tuple(path for path, is_seen in kept.items() if not is_seen))


def check_apart(profile: Profile, *, state: State, keys: Sequence[Path], cwd: Path) -> None:
    """That a program is not given the kernel's own folder or state, may not change any of it, and does not work among keys.

    Hidden, its workspace would be an empty folder, whose files are lost; seen, it hands out the owner's token, or the keys. Whoever names a
    place of keys as something to read is taken at their word. The sockets of the kernel are there to be spoken to.

    Raises:
        ProgramFailed: It is.
    """
    given = [path for path in profile.roots if path == state.home]
    given += [path for path in profile.writable if _lies_in(path, state.kept)]
    read = (path for path in profile.readable if _lies_in(path, state.unseen))
    given += [path for path in read if not path.is_socket()]
    if given:
        raise ProgramFailed(
            f"a program cannot be given {given[0]}, where the kernel keeps its state",
            hint="name something else, or run it in another folder: `--cwd`",
        )
    place = cwd.resolve()
    if _lies_in(place, keys):
        raise ProgramFailed(
            f"a program cannot be started in {place}, where you keep keys",
            hint="run it in another folder, or with `--cwd`",
        )


def check_python() -> None:
    """That Python is still what it was: a symlink on the way to it may lie in a workspace, and no mount holds one in its place.

    Raises:
        ProgramFailed: One leads elsewhere.
    """
    for link, target in python_links().items():
        if not link.is_symlink() or link.readlink() != target:
            raise ProgramFailed(
                f"{link} led to the Python of this kernel when that began, and does no more",
                hint=f"look at who changed it; make it a symlink to {target} again",
            )


def obeyed(profile: Profile) -> list[Path]:
    """What the kernel runs or reads at its start of that a program may change: Python, AIOS and the configuration, where they lie within its workspace.

    Whoever names one of these as something to change is taken at their word.
    """
    named = [*python_places().readable, file_path(os.environ).resolve()]
    return [
        path
        for path in named
        if path not in profile.writable and _lies_in(path, profile.writable) and path.exists()
    ]


def _lies_in(path: Path, places: Sequence[Path]) -> bool:
    return any(is_within(path, place) for place in places)
