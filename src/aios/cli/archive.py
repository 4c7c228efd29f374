"""The verbs `export` and `import`: all notes and files of AIOS_HOME as one file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import apsw
import click

from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, short_size, write_json
from aios.cli.progress import advance_bar
from aios.config import Home
from aios.configload import load
from aios.disk.blobs import BlobStore
from aios.disk.connection import connect, translated
from aios.disk.lock import FileLock
from aios.disk.migrations import migrate
from aios.errors import Conflict, NotFound
from aios.kernel.archive.archive import Part, check_archive, save_all, take_all
from aios.kernel.archive.taken import TakenIn
from aios.kernel.schemas import SCHEMAS

PARTS: tuple[Part, ...] = ("notes", "files")
N_SHOWN = 20


@click.command(
    epilog=examples("aios export home.aios", "aios export notes.aios --only notes --json")
)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--only", type=click.Choice(PARTS), help="Only notes, or only files.")
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@json_option
def export(*, target: Path, only: Part | None, force: bool, as_json: bool) -> None:
    """Write all that agents remember, and their files, to FILE.

    Notes come with scope, origin, tags, links and what they took the place of; short-term memory too; files of /agents, /groups and
    /shared with all their versions and shares. Mounted folders are not in it. A kernel may run meanwhile: it is one snapshot.
    FILE is complete or not there.
    """
    home = load().home
    if not home.database.exists():
        raise NotFound(f"{home.root} holds nothing yet", hint="set AIOS_HOME to the home you mean")
    if target.exists() and not force:
        raise Conflict(f"{target} is there already", hint="overwrite it with --force")
    parts = frozenset(PARTS if only is None else (only,))
    connection = connect(home.database, is_writer=False)
    try:
        with (
            translated(home.database),
            advance_bar(shows=not as_json) as draw,
            _draft(target) as out,
        ):
            n_entries = save_all(connection, BlobStore(home.blobs), out, parts=parts, report=draw)
    finally:
        connection.close()
    size_bytes = target.stat().st_size
    if as_json:
        write_json({"file": str(target), "n_entries": n_entries, "size_bytes": size_bytes})
    else:
        click.echo(f"{target}: {counted(n_entries, 'entry', 'entries')}, {short_size(size_bytes)}")


@click.command(
    "import", epilog=examples("aios import home.aios", "aios import home.aios --keep-mine")
)
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--keep-mine",
    "keeps_mine",
    is_flag=True,
    help="Where something else is here already, leave it and go on.",
)
@json_option
def import_(*, source: Path, keeps_mine: bool, as_json: bool) -> None:
    """Take in what `export` wrote to FILE: all of it or, if anything is wrong, nothing.

    No kernel may run on AIOS_HOME meanwhile. What is here already is not written twice, so a backup restores what is missing. A file
    with other versions here, or an agent with other interactions, is a conflict.
    """
    home = load().home
    with source.open("rb") as file, advance_bar(shows=not as_json) as draw:
        check_archive(file, draw)
        file.seek(0)
        with _opened(home) as (connection, blobs), translated(home.database):
            taken = take_all(connection, blobs, file, keeps_mine=keeps_mine, report=draw)
    write_json(taken) if as_json else _show(taken)


@contextmanager
def _opened(home: Home) -> Iterator[tuple[apsw.Connection, BlobStore]]:
    """The database of a home, for this command alone.

    Raises:
        Conflict: A kernel has it open.
    """
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock.acquire(home.database.with_name(f"{home.database.name}.lock"))
    try:
        connection = connect(home.database, is_writer=True)
        try:
            with translated(home.database):
                migrate(connection, SCHEMAS)
            yield connection, BlobStore(home.blobs)
        finally:
            connection.close()
    finally:
        lock.release()


@contextmanager
def _draft(target: Path) -> Iterator[BinaryIO]:
    """A file that takes its place, on disk and as a whole, when the block ends well; only its owner may read it."""
    draft = target.with_name(f".{target.name}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _show(taken: TakenIn) -> None:
    click.echo(
        f"{counted(taken.n_notes, 'note')}, {counted(taken.n_interactions, 'interaction')}, "
        f"{counted(taken.n_versions, 'version')} of files, {counted(taken.n_shares, 'share')}; "
        f"here already: {taken.n_known}"
    )
    for each in taken.kept[:N_SHOWN]:
        click.echo(f"left as it is: {printable(each)}")
    if len(taken.kept) > N_SHOWN:
        click.echo(f"left as it is: {len(taken.kept) - N_SHOWN} more")
