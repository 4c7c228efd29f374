"""Find what other programs have changed in a mounted folder, and make versions of it.

Looking runs in threads (`find_differences`, `examine`), recording inside a write of the database (`record`); what goes together is up to `mounts.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import apsw
from msgspec import Struct
from msgspec.structs import replace

from aios.disk.blobs import BlobStore, Piece
from aios.disk.chunks import Cutter, sizes_for
from aios.disk.folder import Folder, Item, Kind, Parts, Stamp, read_exactly, read_pieces, stamp_of
from aios.errors import AccessDenied, AiosError, DiskFailed, NotFound
from aios.kernel.storage.content import get_manifest, stage
from aios.kernel.storage.mount_tables import (
    Mount,
    names_in,
    real_parts,
    set_name,
    set_stamp,
    stamps_in,
)
from aios.kernel.storage.names import shown_name
from aios.kernel.storage.tables import files_below, find_file, folders_in
from aios.kernel.storage.versions import PutAt, Transaction

N_TRIES = 3
"""How often a file is read again because it was changed meanwhile."""
RACY_NS = 50_000_000
"""A file changed so shortly before it was read may be changed again within the same tick of the clock of its file system."""


@dataclass
class Seen:
    """What a look at files of a mount has found, to be recorded together."""

    gone: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    is_behind: bool = False
    """It is a folder in which more may differ than was noticed."""


@dataclass
class Differences(Seen):
    """What differs between a real folder and what is listed of it."""

    folders: list[str] = field(default_factory=list)
    names: dict[str, bytes | None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


class Found(Struct, frozen=True):
    """What a look at a file has found: its content, staged; or that it is gone; or why it is left as it is."""

    path: str
    stamp: Stamp | None = None
    pieces: tuple[Piece, ...] = ()
    is_gone: bool = False
    is_same: bool = False
    """It holds what its newest version does."""
    why: str = ""


def find_differences(
    connection: apsw.Connection, mount: Mount, path: str, ignored: frozenset[str]
) -> Differences:
    """Compare one folder, without those below it. Cost: 10 us a file."""
    found = Differences()
    assert mount.real is not None, "compared a folder that is not there"
    items = _items(mount.real, real_parts(connection, mount, path), found, path)
    if items is None:
        return found
    known, names = stamps_in(connection, path), names_in(connection, path)
    shown = _named(items, path, found)
    for each, item in shown.items():
        real = None if item.name == each.rpartition("/")[2].encode() else item.name
        if names.get(each) != real:
            found.names[each] = real
        if each.rpartition("/")[2].casefold() in ignored:
            found.skipped[each] = "ignored by storage.mount_ignore"
        elif item.kind is Kind.FOLDER:
            found.folders.append(each)
        elif item.kind is Kind.OTHER:
            found.skipped[each] = item.why
        elif known.get(each) != item.stamp or each not in known:
            found.changed.append(each)
    files = {each for each, item in shown.items() if item.kind is Kind.FILE} - set(found.skipped)
    found.gone = sorted(known.keys() - files) + _gone(connection, path, found.folders)
    return found


def _gone(connection: apsw.Connection, path: str, folders: Sequence[str]) -> list[str]:
    """What is listed in folders that are not there any more, or stands where now the folder is."""
    gone = [] if find_file(connection, path) is None else [path]
    for folder in folders_in(connection, path):
        if folder not in folders:
            gone += [row.path for row in files_below(connection, folder)]
    return gone


def still_gone(
    connection: apsw.Connection, mount: Mount, paths: Sequence[str], ignored: frozenset[str]
) -> list[str]:
    """Of the paths that a comparison found gone, those where no file is shown now; of what cannot be known, nothing."""
    gone = []
    for path in paths:
        with suppress(DiskFailed):
            if not _is_shown(connection, mount, path, ignored):
                gone.append(path)
    return gone


def _is_shown(
    connection: apsw.Connection, mount: Mount, path: str, ignored: frozenset[str]
) -> bool:
    if mount.real is None or any(part.casefold() in ignored for part in path.split("/")[2:]):
        return False
    try:
        item = mount.real.find(real_parts(connection, mount, path))
    except AccessDenied:  # a link stands on the way to it
        return False
    return item is not None and item.kind is Kind.FILE


def _items(real: Folder, parts: Parts, found: Differences, path: str) -> list[Item] | None:
    """What is in a folder; None if that cannot be known, and then nothing of it may be taken for gone."""
    try:
        return real.items(parts)
    except (NotFound, AccessDenied):  # gone, or a link stands on the way to it
        return []
    except DiskFailed as error:
        found.skipped[path] = error.message
        return None


def _named(items: Iterable[Item], path: str, found: Differences) -> dict[str, Item]:
    """The items by the paths that show them. Who is shown under its own name comes before who needs another."""
    shown: dict[str, Item] = {}
    names = [(item, shown_name(item.name)) for item in items]
    for item, name in sorted(
        names, key=lambda pair: (pair[1].encode() != pair[0].name, pair[0].name)
    ):
        each = f"{path}/{name}"
        if not name:
            found.skipped[f"{path}/{item.name!r}"] = "a name that no path can show"
        elif each in shown:
            found.skipped[f"{path}/{item.name!r}"] = f"shown as {each}, which is there already"
        else:
            shown[each] = item
    return shown


def examine_all(
    connection: apsw.Connection,
    blobs: BlobStore,
    mount: Mount,
    paths: Iterable[str],
    *,
    founds: list[Found],
    now_ns: int,
) -> None:
    """Look at real files. What is found goes to `founds` at once, so that the caller can settle its pieces whatever happens."""
    assert mount.real is not None, "read from a folder that is not there"
    for path in paths:
        parts = real_parts(connection, mount, path)
        same = find_same(connection, blobs, mount.real, path, parts=parts, now_ns=now_ns)
        founds.append(same or examine(blobs, mount.real, path, parts=parts, now_ns=now_ns))


def find_same(
    connection: apsw.Connection,
    blobs: BlobStore,
    real: Folder,
    path: str,
    *,
    parts: Parts,
    now_ns: int,
) -> Found | None:
    """What is found at a real file that holds its newest version; None where it does not, or cannot be read.

    The bytes are compared: one content may be cut in several ways, as when it came in pieces.
    """
    row = find_file(connection, path)
    with suppress(AiosError, OSError), real.open_file(parts) as (descriptor, stamp):
        if row is None or stamp.size_bytes != row.size_bytes:
            return None
        for key in get_manifest(connection, row.content).keys:
            expected = blobs.get(connection, key)
            if read_exactly(descriptor, len(expected)) != expected:
                return None
        if stamp_of(descriptor) == stamp:
            return Found(path, _trusted(stamp, now_ns), is_same=True)
    return None


def _trusted(stamp: Stamp, now_ns: int) -> Stamp:
    """The stamp, without the time of a change that another one could have, too."""
    return replace(stamp, ctime_ns=0) if now_ns - stamp.ctime_ns < RACY_NS else stamp


def examine(blobs: BlobStore, real: Folder, path: str, *, parts: Parts, now_ns: int) -> Found:
    """Read a real file in pieces and stage its content, all of one moment. The caller settles the pieces."""
    for _ in range(N_TRIES):
        try:
            with real.open_file(parts) as (descriptor, stamp):
                pieces = tuple(stage(blobs, _chunks(descriptor, stamp.size_bytes)))
                if stamp_of(descriptor) == stamp:
                    return Found(path, _trusted(stamp, now_ns), pieces)
                blobs.settle(*pieces)
        except NotFound:
            return Found(path, is_gone=True)
        except AccessDenied as error:
            return Found(path, is_gone=True, why=error.message)
        except DiskFailed as error:
            return Found(path, why=error.message)
        except OSError as error:
            return Found(path, why=f"it cannot be read: {error.strerror}")
    return Found(path, why="it is being written all the time")


def _chunks(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    cutter = Cutter(sizes_for(size_bytes))
    for block in read_pieces(descriptor):
        yield from cutter.feed(block)
    yield from cutter.finish()


def record(transaction: Transaction, founds: Sequence[Found]) -> None:
    """Inside a write: a version for each file that was changed or is gone.

    Raises:
        ResourceExhausted: The quota of the mount is used up.
        Conflict: A file stands where another has a folder.
    """
    connection, author = transaction.connection, transaction.author
    for found in founds:
        if found.is_gone:
            if find_file(connection, found.path) is not None:
                transaction.set_content(found.path, None, None)
            set_stamp(connection, found.path, None)
    for found in founds:
        if found.stamp is None:
            continue
        if found.is_same:
            set_stamp(connection, found.path, found.stamp)
            continue
        if find_file(connection, found.path) is None:
            # So that going back to a moment before the mount leaves what was there at that moment.
            born_unix_s = min(author.unix_s, found.stamp.mtime_ns / 1e9)
            transaction.author = replace(author, unix_s=born_unix_s)
        transaction.take(PutAt(found.path, found.pieces))
        transaction.author = author
        set_stamp(connection, found.path, found.stamp)


def record_names(connection: apsw.Connection, names: dict[str, bytes | None]) -> None:
    """Inside a write: real names that are not what their paths show, or no longer."""
    for path, real in names.items():
        set_name(connection, path, real)
