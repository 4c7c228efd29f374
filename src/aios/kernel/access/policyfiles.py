"""The policies of a kernel as texts: the shipped profile, and the files of its owner."""

import os
from importlib.resources import files
from pathlib import Path

from aios.errors import ConfigError
from aios.kernel.access.policy import Source

PROFILES = ("read-only", "workspace", "full")
MAX_FILE_BYTES = 1 << 20
SUFFIX = ".cedar"


def profile_source(name: str) -> Source:
    """The text of a shipped profile.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PROFILES:
        raise ConfigError(f"no profile {name!r}", hint=f"the profiles are {', '.join(PROFILES)}")
    text = files("aios.kernel.access").joinpath(f"profiles/{name}{SUFFIX}").read_text("utf-8")
    return Source(name, text)


def file_source(file: Path) -> Source:
    """The text of a policy file.

    Raises:
        ConfigError: It is no regular file, is too long, or cannot be read.
    """
    try:
        if not file.is_file():  # to read a pipe could take for ever
            raise ConfigError(f"{file} is no file", hint="a policy file is a text")
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{file} is over {MAX_FILE_BYTES} bytes", hint="write policies about folders and groups"
        )
    try:
        return Source(file.stem, data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: {error}", hint="save it as UTF-8") from error


def load_sources(profile: str, folder: Path) -> list[Source]:
    """The profile, and every `*.cedar` in the folder, in the order of their names.

    Raises:
        ConfigError: One cannot be read. A kernel does not start without a rule that its owner wrote.
    """
    own = [file_source(file) for file in _files_in(folder)]
    taken = [source.name for source in own if source.name in PROFILES]
    if taken:
        raise ConfigError(
            f"{taken[0]}{SUFFIX} in {folder} has the name of a shipped profile",
            hint="rename it; `access.profile` chooses a profile",
        )
    return [profile_source(profile), *own]


def _files_in(folder: Path) -> list[Path]:
    """The policy files of a folder, which need not be there. `glob` would find none in one that may not be read."""
    if not os.path.lexists(folder):
        return []
    try:
        return sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIX))
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be read: {error.strerror}",
            hint="policies are files in this folder; check what it is, and its permissions",
        ) from error
