"""The verb `fsck`: by the kernel that runs, or on the files of one that does not."""

import click
from msgspec import Struct

from aios.abi.memory import MemoryCheck, NotesChecked
from aios.abi.storage import Checked, FileCheck
from aios.cli.connecting import connect
from aios.cli.exits import ExitCode
from aios.cli.link import find_running
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, write_json
from aios.cli.progress import advance_bar, attended
from aios.config import Home
from aios.configload import load


class Stored(Struct, frozen=True):
    """All that was read, of files and of memory, and every fault."""

    n_blobs: int
    n_versions: int
    n_notes: int
    faults: tuple[str, ...]


@click.command(epilog=examples("aios fsck"))
@json_option
def fsck(*, as_json: bool) -> None:
    """Read all that is stored of files and notes, and compare it with its checksums, counts and indexes; 1 if something is wrong.

    It asks the kernel that runs. If none does, it reads the files of AIOS_HOME itself and changes nothing.
    """
    home = load().home
    if find_running(home) is not None:
        with connect() as client:
            files = attended(client.gate, FileCheck(), shows=not as_json)
            checked = _joined(files, client.gate.call(MemoryCheck()).value)
    else:
        checked = _check_offline(home, shows=not as_json)
    if as_json:
        write_json(checked)
    else:
        for fault in checked.faults:
            click.echo(printable(fault))
        counts = [
            counted(checked.n_versions, "version"),
            counted(checked.n_blobs, "blob"),
            counted(checked.n_notes, "note"),
            counted(len(checked.faults), "fault"),
        ]
        click.echo(", ".join(counts))
    if checked.faults:
        click.get_current_context().exit(ExitCode.FAILED)


def _joined(files: Checked, notes: NotesChecked) -> Stored:
    faults = (*files.faults, *notes.faults)
    return Stored(files.n_blobs, files.n_versions, notes.n_notes, faults)


def _check_offline(home: Home, *, shows: bool) -> Stored:
    """Check the files of a home that no kernel has open.

    Raises:
        Conflict: A kernel has it open after all.
        DiskFailed: It cannot be read.
    """
    # Start-up time: SQLite and the kernel's rooms are for this case alone.
    from aios.disk.blobs import BlobStore  # noqa: PLC0415
    from aios.disk.connection import connect as connect_file  # noqa: PLC0415
    from aios.disk.lock import FileLock  # noqa: PLC0415
    from aios.errors import DiskFailed  # noqa: PLC0415
    from aios.kernel.memory.check import check_notes  # noqa: PLC0415
    from aios.kernel.storage.check import check_all  # noqa: PLC0415

    if not home.database.exists():
        is_lost = any(path.is_file() for path in home.blobs.rglob("*"))
        lost = f"{home.database} is gone, and {home.blobs} holds content: restore it from a backup"
        return Stored(0, 0, 0, (lost,) if is_lost else ())
    lock = FileLock.acquire(home.database.with_name(f"{home.database.name}.lock"))
    try:
        connection = connect_file(home.database, is_writer=False)
        with advance_bar(shows=shows) as draw:
            files = check_all(connection, BlobStore(home.blobs), draw)
            return _joined(files, check_notes(connection))
    except DiskFailed as error:
        return Stored(0, 0, 0, (error.message,))
    finally:
        lock.release()
