"""The verb `fsck`: by the kernel that runs, or on the files of one that does not."""

import click

from aios.abi.storage import Checked, FileCheck
from aios.cli.exits import ExitCode
from aios.cli.link import find_running
from aios.cli.options import examples, json_option
from aios.cli.output import printable, write_json
from aios.cli.progress import advance_bar, attended
from aios.config import Home
from aios.configload import load
from aios.sdk.blocking import connect


@click.command(epilog=examples("aios fsck"))
@json_option
def fsck(*, as_json: bool) -> None:
    """Read all that is stored of files, and compare it with its checksums and counts; 1 if something is wrong.

    It asks the kernel that runs. If none does, it reads the files of AIOS_HOME itself and changes nothing.
    """
    home = load().home
    if find_running(home) is not None:
        with connect() as client:
            checked = attended(client.gate, FileCheck(), shows=not as_json)
    else:
        checked = _check_offline(home, shows=not as_json)
    if as_json:
        write_json(checked)
    else:
        for fault in checked.faults:
            click.echo(printable(fault))
        click.echo(
            f"{checked.n_versions} versions, {checked.n_blobs} blobs, {len(checked.faults)} faults"
        )
    if checked.faults:
        click.get_current_context().exit(ExitCode.FAILED)


def _check_offline(home: Home, *, shows: bool) -> Checked:
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
    from aios.kernel.storage.check import check_all  # noqa: PLC0415

    if not home.database.exists():
        return Checked(0, 0, ())
    lock = FileLock.acquire(home.database.with_name(f"{home.database.name}.lock"))
    try:
        connection = connect_file(home.database, is_writer=False)
        with advance_bar(shows=shows) as draw:
            return check_all(connection, BlobStore(home.blobs), draw)
    except DiskFailed as error:
        return Checked(0, 0, (error.message,))
    finally:
        lock.release()
