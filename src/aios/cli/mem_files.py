"""`aios mem export` and `import`: notes as a file of JSON lines, for people and other programs."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import click
import msgspec

from aios.abi.memory import Note, Scope
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import counted, write_json
from aios.cli.progress import advance_bar
from aios.errors import InvalidCall
from aios.kernel.clock import SystemClock
from aios.malformed import named
from aios.readers import from_json
from aios.sdk.memory import ScopeName, imported_source

SCOPES = ("process", "agent", "group", "shared")
N_AT_ONCE = 16
"""Notes that wait for the disk together."""

scope_option = click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="Only notes of this scope."
)
tags_option = click.option("--tag", "tags", multiple=True, help="Only notes with this tag.")
agent_option = click.option(
    "--agent", help="Only what this agent keeps for itself: its folder below /agents (boss/reader)."
)


def is_of(note: Note, agent: str | None) -> bool:
    """Whether a note is the private one of an agent, if one is asked for."""
    return agent is None or (note.scope is Scope.AGENT and note.agent == agent)


@click.command(epilog=examples("aios mem export > notes.jsonl"))
@scope_option
@tags_option
@agent_option
@json_option
def export(
    *, scopes: tuple[ScopeName, ...], tags: tuple[str, ...], agent: str | None, as_json: bool
) -> None:
    """Write the notes that are in force to standard output, one JSON object a line."""
    del as_json  # it is JSON either way
    with connect() as client:
        for note in client.memory.notes(scopes=scopes, tags=tags):
            if is_of(note, agent):
                write_json(note)


@click.command(
    "import",
    epilog=examples(
        "aios mem import notes.jsonl --scope shared", "zcat notes.jsonl.gz | aios mem import -"
    ),
)
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--scope",
    type=click.Choice(SCOPES[1:]),
    help="Keep all under this scope; else each under its own.",
)
@json_option
def import_(*, file: Path, scope: ScopeName | None, as_json: bool) -> None:
    """Keep the notes of a file that `export` wrote, as the owner's own; `-` is standard input.

    Text, tags, importance, validity, expiry and the mark of data from outside come along; who wrote a note is named in its source. What
    an agent kept for itself is then for the owner alone, unless `--scope` says otherwise. Notes that have expired are left out, and so are those that were imported
    before and, without `--scope`, those that are here still. To bring back a whole home, with whose each note is, use `aios export` and `aios import`.
    """
    import anyio  # noqa: PLC0415 - start-up time of the other commands

    name = "standard input" if str(file) == "-" else str(file)
    with _opened(file) as lines, advance_bar(shows=not as_json) as draw:
        n_all = sum(1 for _ in _exported(lines, name))  # all are read before the first is kept
        n_kept = anyio.run(_import_all, lines, scope, lambda n_done: draw("notes", n_done, n_all))
    n_left = n_all - n_kept
    if as_json:
        write_json({"n_notes": n_kept, "n_left_out": n_left})
    else:
        left = f"; {n_left} left out (expired, or here already)" if n_left else ""
        click.echo(f"{counted(n_kept, 'note')}{left}")


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A file that can be read twice; standard input is kept on disk until then."""
    if str(file) != "-":
        with file.open("rb") as lines:
            yield lines
        return
    with TemporaryFile() as lines:
        shutil.copyfileobj(sys.stdin.buffer, lines)
        yield lines


def _exported(lines: BinaryIO, name: str = "it") -> Iterator[Note]:
    """The notes of a file from its beginning, a line each."""
    lines.seek(0)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield from_json(line, Note)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidCall(
                f"line {number} of {name} is no exported note: {named(error)}",
                hint="give a file that `aios mem export` wrote",
            ) from error


def _fresh(lines: BinaryIO, known: set[tuple[str, str]]) -> Iterator[Note]:
    """The notes of a file that have not expired and are not known."""
    clock = SystemClock()
    for note in _exported(lines):
        is_over = note.expires_unix_s is not None and note.expires_unix_s <= clock.unix_s()
        if not is_over and (note.text, imported_source(note)) not in known:
            yield note


async def _import_all(
    lines: BinaryIO, scope: ScopeName | None, report: Callable[[int], None]
) -> int:
    """Keep notes, some at a time, in about their order. Returns: how many."""
    import anyio  # noqa: PLC0415 - start-up time of the other commands

    from aios.sdk.client import connect as connect_async  # noqa: PLC0415 - the same

    n_kept = 0
    async with connect_async() as client:
        held = [note async for note in client.memory.notes(include_superseded=True)]
        known = {(note.text, note.origin.source) for note in held}  # an imported one has them
        if scope is None:
            known |= {(note.text, imported_source(note)) for note in held}  # one that is here still
        notes = _fresh(lines, known)
        while part := list(islice(notes, N_AT_ONCE)):
            async with anyio.create_task_group() as tasks:
                for note in part:
                    tasks.start_soon(client.memory.import_note, note, scope)
            n_kept += len(part)
            report(n_kept)
    return n_kept
