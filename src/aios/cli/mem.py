"""The verb `mem`: what agents remember, as the owner of the kernel sees it."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from aios.abi.memory import Note
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import Column, moment, printable, shortened, write_json, write_table
from aios.errors import InvalidCall
from aios.kernel.clock import SystemClock
from aios.sdk.blocking import Client
from aios.sdk.memory import RememberOptions, ScopeName

SCOPES = ("process", "agent", "group", "shared")
SHOWN_CHARS = 80


class NoteNumber(click.ParamType[int]):
    """The number of a note."""

    name = "note"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it, or refuse it as click does."""
        if not re.fullmatch(r"[1-9][0-9]{0,17}", str(value)):
            shown = (
                f"{value!r} is no number of a note; `aios mem ls` and `aios mem search` show them"
            )
            self.fail(shown, param, ctx)
        return int(str(value))


class Words(click.ParamType[str]):
    """A text that says something."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Take it, or refuse it as click does."""
        if not str(value).strip():
            self.fail("it is empty; give some words", param, ctx)
        return str(value)


scope_option = click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="Only notes of this scope."
)
tags_option = click.option("--tag", "tags", multiple=True, help="Only notes with this tag.")
all_option = click.option(
    "--all", "show_all", is_flag=True, help="Also notes that another took the place of."
)


@click.group()
def mem() -> None:
    """Look into what agents remember, and change it."""


@mem.command(epilog=examples("aios mem ls", "aios mem ls --scope shared --tag food --json"))
@scope_option
@tags_option
@all_option
@json_option
def ls(
    *, scopes: tuple[ScopeName, ...], tags: tuple[str, ...], show_all: bool, as_json: bool
) -> None:
    """List notes, oldest first."""
    with connect() as client:
        notes = client.memory.notes(scopes=scopes, tags=tags, include_superseded=show_all)
        if as_json:
            for note in notes:
                write_json(note)
            return
        columns = [Column("ID", is_number=True), Column("SCOPE"), Column("BY"), Column("TAGS")]
        write_table([*columns, Column("TEXT")], [_row(note) for note in notes])


@mem.command(
    epilog=examples("aios mem search 'what does the user eat?'", "aios mem search cats -n 3")
)
@click.argument("query", type=Words())
@click.option("-n", "limit", type=click.IntRange(1, 100), default=10, show_default=True)
@scope_option
@tags_option
@all_option
@click.option("--links", "follow_links", is_flag=True, help="Also notes that hits are linked with.")
@json_option
def search(
    *,
    query: str,
    limit: int,
    scopes: tuple[ScopeName, ...],
    tags: tuple[str, ...],
    show_all: bool,
    follow_links: bool,
    as_json: bool,
) -> None:
    """Find notes by words and by meaning, best first."""
    with connect() as client:
        found = client.memory.recall(
            query,
            limit,
            scopes=scopes,
            tags=tags,
            include_superseded=show_all,
            follow_links=follow_links,
        )
    for hit in found.hits:
        if as_json:
            write_json(hit)
            continue
        why = click.style(f"({', '.join(hit.why)})", dim=True)
        click.echo(f"{hit.note.id:>6}  {hit.score:.3f}  {_shown(hit.note.text)}  {why}")
    if not (found.hits or as_json):
        click.echo("no note fits", err=True)
    if not found.embedder:
        click.echo("only words were compared; pip install 'aios-kernel[memory]'", err=True)


@mem.command(epilog=examples("aios mem add 'The user eats no meat' --scope shared --tag food"))
@click.argument("text", type=Words())
@click.option("--scope", type=click.Choice(SCOPES[1:]), default="shared", show_default=True)
@click.option("--tag", "tags", multiple=True)
@click.option(
    "--importance", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="0 to 1."
)
@click.option("--source", default="", help="Where it is from.")
@json_option
def add(
    *,
    text: str,
    scope: ScopeName,
    tags: tuple[str, ...],
    importance: float,
    source: str,
    as_json: bool,
) -> None:
    """Keep a note."""
    with connect() as client:
        note = client.memory.remember(
            text, scope=scope, tags=tags, importance=importance, source=source
        )
    write_json({"id": note}) if as_json else click.echo(f"note {note}")


@mem.command(epilog=examples("aios mem show 12", "aios mem show 12 --json"))
@click.argument("note", metavar="ID", type=NoteNumber())
@json_option
def show(*, note: int, as_json: bool) -> None:
    """Show a note whole: its text, who wrote it and when, what it is linked with and what took its place."""
    with connect() as client:
        details = client.memory.get(note)
    if as_json:
        write_json(details)
        return
    found, origin = details.note, details.note.origin
    click.echo(printable(found.text))
    lines = [
        ("scope", found.scope.value),
        ("by", f"{origin.owner}/{origin.name}, call {origin.seq} of process {origin.pid}"),
        ("source", origin.source),
        ("written", moment(found.created_unix_s)),
        ("holds", _span(found.valid_from_unix_s, found.valid_to_unix_s)),
        ("expires", moment(found.expires_unix_s) if found.expires_unix_s else ""),
        ("tags", ", ".join(found.tags)),
        ("importance", f"{found.importance:g}"),
        ("recalled", str(found.n_used)),
        ("replaces", str(found.supersedes or "")),
        ("replaced by", str(found.superseded_by or "")),
        ("linked with", ", ".join(map(str, details.links))),
        ("taint", found.taint),
    ]
    for name, value in lines:
        if value:
            click.echo(f"{name:<12}{printable(value)}")


@mem.command(epilog=examples("aios mem stat", "aios mem stat --json"))
@json_option
def stat(*, as_json: bool) -> None:
    """Tell how many notes there are, and how far the index of meanings is."""
    with connect() as client:
        used = client.memory.usage()
    if as_json:
        write_json(used)
        return
    click.echo(f"notes     {used.n_notes} of {used.max_notes} of this owner")
    click.echo(f"embedder  {used.embedder or 'none, or it has not answered yet'}")
    click.echo(f"waiting   {used.n_waiting} notes have no vector of it yet")


@mem.command(epilog=examples("aios mem forget 12"))
@click.argument("notes", metavar="ID...", type=NoteNumber(), nargs=-1, required=True)
@json_option
def forget(*, notes: tuple[int, ...], as_json: bool) -> None:
    """Delete notes, and all those whose place they took."""
    with connect() as client:
        for note in notes:
            ids = client.memory.forget(note)
            if as_json:
                write_json({"ids": ids})
            else:
                click.echo(f"forgot {', '.join(map(str, ids))}")


@mem.command(epilog=examples("aios mem export > notes.jsonl"))
@scope_option
@tags_option
@json_option
def export(*, scopes: tuple[ScopeName, ...], tags: tuple[str, ...], as_json: bool) -> None:
    """Write the notes that are in force to standard output, one JSON object a line."""
    del as_json  # it is JSON either way
    with connect() as client:
        for note in client.memory.notes(scopes=scopes, tags=tags):
            write_json(note)


@mem.command("import", epilog=examples("aios mem import notes.jsonl --scope shared"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scope", type=click.Choice(SCOPES[1:]), default="shared", show_default=True)
@json_option
def import_(*, file: Path, scope: ScopeName, as_json: bool) -> None:
    """Keep the notes of a file that `export` wrote, as the owner's, under one scope.

    Text, tags, importance, validity and expiry come along; who wrote a note is named in its source. Notes that have expired
    are left out. Each is a new note: to import a file twice keeps its notes twice.
    """
    now = SystemClock().unix_s()
    n_notes = sum(1 for _ in _unexpired(file, now))  # all are read before the first is kept
    with connect() as client:
        for note in _unexpired(file, now):
            _import(client, note, scope, now)
    write_json({"n_notes": n_notes}) if as_json else click.echo(f"{n_notes} notes")


def _exported(file: Path) -> Iterator[Note]:
    """The notes of a file, a line each."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield msgspec.json.decode(line, type=Note)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InvalidCall(
                    f"line {number} of {file} is no exported note: {error}",
                    hint="give a file that `aios mem export` wrote",
                ) from error


def _unexpired(file: Path, now: float) -> Iterator[Note]:
    for note in _exported(file):
        if note.expires_unix_s is None or note.expires_unix_s > now:
            yield note


def _import(client: Client, note: Note, scope: ScopeName, now: float) -> None:
    origin = note.origin
    options: RememberOptions = {
        "scope": scope,
        "tags": note.tags,
        "importance": note.importance,
        "source": f"{origin.source} (note {note.id} of {origin.owner}/{origin.name})".strip(),
        "valid_from_unix_s": note.valid_from_unix_s,
    }
    if note.valid_to_unix_s is not None:
        options["valid_to_unix_s"] = note.valid_to_unix_s
    if note.expires_unix_s is not None:
        options["expires_in_s"] = note.expires_unix_s - now
    client.memory.remember(note.text, **options)


def _row(note: Note) -> list[str]:
    by = printable(f"{note.origin.owner}/{note.origin.name}")
    tags = printable(",".join(note.tags))
    return [str(note.id), note.scope.value, by, tags, _shown(note.text)]


def _span(begin_unix_s: float, end_unix_s: float | None) -> str:
    end = "" if end_unix_s is None else f" to {moment(end_unix_s)}"
    return f"from {moment(begin_unix_s)}{end}"


def _shown(text: str) -> str:
    """A text on one line, cut."""
    return shortened(" ".join(printable(text).split()), SHOWN_CHARS)
