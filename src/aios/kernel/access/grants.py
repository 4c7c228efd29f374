"""Rights that the owner granted to programs, remembered by what is in their folders: a changed program has none.

A wish is an action, alone or with a resource: `file.write Path::/shared/reports`, `tool.run Tool::base/launch`. A grant answers what policies
would ask or do not speak of. It never answers a ban, and gives nothing to those that started the program or that it starts.
"""

import fcntl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from aios.errors import ConfigError, Conflict, NotFound, TooLarge
from aios.kernel.access.naming import RESOURCES
from aios.kernel.access.policy import ACTIONS
from aios.plainfile import read_plain
from aios.readers import from_json

MAX_FILES, MAX_BYTES = 4_096, 64 << 20
MAX_GRANTS_BYTES = 4 << 20
COMPILED = "__pycache__"
"""What Python runs in the place of a source that has the right age and size, whatever is in it."""


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """What a program may besides, as long as its folder has this digest."""

    program: str
    digest: str
    rights: tuple[str, ...]
    unix_s: float


class Grants(Struct, frozen=True):
    """The file of all grants. It is read anew each time, so that `aios grant` needs no kernel."""

    file: Path

    def all(self) -> tuple[Grant, ...]:
        """Every grant, in the order of the folders.

        Raises:
            ConfigError: The file is not what this module wrote.
        """
        try:
            with self.file.open("rb") as stream:
                data = stream.read(MAX_GRANTS_BYTES)
            return from_json(data, tuple[Grant, ...])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{self.file} cannot be read: {error}", hint="remove it, and grant again"
            ) from error

    def rights_of(self, program: str, digest: str | None = None) -> tuple[str, ...]:
        """What is granted to a program folder with that digest, else as it is now. Waits for the disk.

        Raises:
            ConfigError: The file of grants cannot be read.
        """
        for grant in self.all():
            if grant.program == program:
                found = digest_of_folder(Path(program)) if digest is None else digest
                return grant.rights if found == grant.digest else ()
        return ()

    def grant(
        self, folder: Path, rights: tuple[str, ...], unix_s: float, *, seen: str | None = None
    ) -> Grant:
        """Remember rights for a folder as it is now, in the place of what it had.

        Raises:
            ConfigError: A right is none, or the file cannot be read.
            Conflict: The folder is not that of the digest `seen` any more.
            TooLarge: The folder is too large to tell whether it has changed.
        """
        for right in rights:
            check_wish(right)
        digest = digest_of_folder(folder)
        if not digest:
            raise TooLarge(
                f"{folder} has over {MAX_FILES} files and folders or {MAX_BYTES} bytes, or what is no file, or a {COMPILED}",
                hint=f"keep data outside of a program's folder; remove {COMPILED}, which is run in the place of the sources",
            )
        if seen not in (None, digest):
            raise Conflict(
                f"{folder} has changed since it was looked at",
                hint="look at it again, when no program writes into it",
            )
        grant = Grant(str(folder), digest, rights, unix_s)
        with self._alone():
            self._write((*(each for each in self.all() if each.program != grant.program), grant))
        return grant

    def revoke(self, folder: Path) -> Grant:
        """Forget what was granted to a folder; what runs of it keeps its rights until it ends.

        Raises:
            NotFound: Nothing was.
        """
        with self._alone():
            kept = self.all()
            for grant in kept:
                if grant.program == str(folder):
                    self._write(tuple(each for each in kept if each is not grant))
                    return grant
        raise NotFound(f"nothing is granted to {folder}", hint="`aios grant` lists all grants")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the file while the block runs: what one takes back another must not bring back."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, grants: tuple[Grant, ...]) -> None:
        draft = self.file.with_suffix(".new")
        ordered = sorted(grants, key=lambda each: each.program)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(ordered)))
        draft.chmod(0o600)
        draft.replace(self.file)


def check_wish(text: str) -> None:
    """Refuse what is no action, alone or with a resource.

    Raises:
        ConfigError: It is not.
    """
    action, _, resource = text.partition(" ")
    kind, separator, name = resource.partition("::")
    if action not in ACTIONS or (resource and not (kind in RESOURCES and separator and name)):
        raise ConfigError(
            f"{text!r} is no right",
            hint="ACTION, or ACTION TYPE::ID such as `file.write Path::/shared/reports`",
        )


def digest_of_folder(folder: Path) -> str:
    """The digest of every name and byte in a folder; empty if it is too large, or has what is no file or compiled Python."""
    digest = blake2b(digest_size=16)
    try:
        for path, is_folder in contents_of(folder):
            if is_folder:
                continue
            name = str(path.relative_to(folder)).encode("utf-8", "surrogateescape")
            for part in (name, content_of(path)):
                digest.update(len(part).to_bytes(8, "big") + part)
    except (OSError, TooLarge):
        return ""
    return digest.hexdigest()


def contents_of(folder: Path) -> Iterator[tuple[Path, bool]]:
    """All that is in a folder, outer folders first, each with whether it is a folder.

    Raises:
        TooLarge: It is more than can be looked at, or nobody can tell by its files whether it changed.
        OSError: It cannot be read.
    """
    n_found, n_bytes, ahead = 0, 0, [folder]
    while ahead:
        path = ahead.pop()
        status = path.lstat()
        is_folder = stat.S_ISDIR(status.st_mode)
        if not is_folder:
            n_bytes += status.st_size
            is_compiled = COMPILED in path.relative_to(folder).parts
            # a link or a pipe may be something else tomorrow
            if is_compiled or not stat.S_ISREG(status.st_mode) or n_bytes > MAX_BYTES:
                raise _odd(path)
        if path != folder:
            yield path, is_folder
        if is_folder:
            inside = list(islice(path.iterdir(), MAX_FILES + 1 - n_found))
            n_found += len(inside)
            if n_found > MAX_FILES:
                raise _odd(path)
            ahead += sorted(inside, reverse=True)


def content_of(path: Path) -> bytes:
    """What is in a plain file. It may have become something else: a pipe, to read which would take for ever.

    Raises:
        TooLarge: It is more than can be looked at, or no plain file.
        OSError: It cannot be read.
    """
    data = read_plain(path, MAX_BYTES + 1, follows_link=False)
    if data is None or len(data) > MAX_BYTES:
        raise _odd(path)
    return data


def _odd(path: Path) -> TooLarge:
    return TooLarge(f"{path} is no plain file, or one too many", hint="remove it")
