"""What no program is given: the kernel's own state, and the user's keys."""

import os
from collections.abc import Sequence
from pathlib import Path

from aios.errors import ProgramFailed
from aios.kernel.sandbox.profile import Profile

SECRETS = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".netrc", ".pgpass", ".pypirc",
    ".npmrc", ".git-credentials", ".password-store", ".mozilla", ".config/google-chrome", ".local/share/keyrings",
)  # fmt: skip
"""Keys and passwords below the user's home, hidden even where a program may see what is around them."""
STATE = ("tools", "policies", "run", "logs", "contexts", "pages", "blobs", "models")
"""Folders of the kernel's home whose content it obeys, or which hold what is of others."""


def key_places() -> list[Path]:
    """Where this user keeps keys."""
    home = Path.home()
    return [home / name for name in SECRETS if os.path.exists(f"{home}/{name}")]  # noqa: PTH110 - each start looks for all of them


def check_apart(profile: Profile, *, home: Path, keys: Sequence[Path], cwd: Path) -> None:
    """That a program is not given the kernel's own folder, may not change its state, and does not work among keys.

    Hidden, its workspace would be an empty folder, whose files are lost; seen, it hands out the owner's token, or the keys. Whoever names a
    place of keys as something to read is taken at their word.

    Raises:
        ProgramFailed: It is.
    """
    kept = [(home / name).resolve() for name in STATE]
    given = [path for path in profile.roots if path == home]
    given += [path for path in profile.writable if any(map(path.is_relative_to, kept))]
    if given:
        raise ProgramFailed(
            f"a program cannot be given {given[0]}, where the kernel keeps its state",
            hint="run it in another folder, or with `--cwd`",
        )
    place = cwd.resolve()
    if any(place.is_relative_to(key.resolve()) for key in keys):
        raise ProgramFailed(
            f"a program cannot be started in {place}, where you keep keys",
            hint="run it in another folder, or with `--cwd`",
        )
