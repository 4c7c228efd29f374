"""The verb `mem`: what agents remember, as the owner of the kernel sees it."""

import re

import click

from aios.abi.memory import Note
from aios.cli.connecting import connect
from aios.cli.meanings import why_only_words
from aios.cli.mem_files import (
    SCOPES,
    agent_option,
    export,
    import_,
    is_of,
    scope_option,
    tags_option,
)
from aios.cli.mem_records import records
from aios.cli.options import examples, json_option, limit_option
from aios.cli.output import Column, counted, moment, printable, shortened, write_json, write_table
from aios.cli.when import Moment
from aios.sdk.memory import RecallOptions, RememberOptions, ScopeName, UpdateOptions

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


all_option = click.option(
    "--all", "show_all", is_flag=True, help="Also notes that another took the place of."
)


@click.group()
def mem() -> None:
    """Look into what agents remember, and change it."""


@mem.command(
    epilog=examples(
        "aios mem ls", "aios mem ls --agent boss/reader", "aios mem ls --tag food --json"
    )
)
@scope_option
@tags_option
@agent_option
@all_option
@json_option
def ls(
    *,
    scopes: tuple[ScopeName, ...],
    tags: tuple[str, ...],
    agent: str | None,
    show_all: bool,
    as_json: bool,
) -> None:
    """List notes, oldest first."""
    with connect() as client:
        found = client.memory.notes(scopes=scopes, tags=tags, include_superseded=show_all)
        notes = (note for note in found if is_of(note, agent))
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
@limit_option(100)
@scope_option
@tags_option
@all_option
@click.option(
    "--at",
    "at_unix_s",
    type=Moment(),
    help="Notes that hold then, not now (2026-12-24T18:00, +2d).",
)
@click.option("--links", "follow_links", is_flag=True, help="Also notes that hits are linked with.")
@json_option
def search(
    *,
    query: str,
    limit: int,
    scopes: tuple[ScopeName, ...],
    tags: tuple[str, ...],
    show_all: bool,
    at_unix_s: float | None,
    follow_links: bool,
    as_json: bool,
) -> None:
    """Find notes by words and by meaning, best first; those that hold now."""
    options: RecallOptions = {
        "scopes": scopes,
        "tags": tags,
        "include_superseded": show_all,
        "follow_links": follow_links,
    }
    if at_unix_s is not None:
        options["at_unix_s"] = at_unix_s
    with connect() as client:
        found = client.memory.recall(query, limit, **options)
        only_words = why_only_words(client, found.embedder, "notes")
    for hit in found.hits:
        if as_json:
            write_json(hit)
            continue
        why = click.style(f"({', '.join(hit.why)})", dim=True)
        click.echo(f"{hit.note.id:>6}  {hit.score:.3f}  {_shown(hit.note.text)}  {why}")
    if not (found.hits or as_json):
        click.echo("no note fits", err=True)
    if only_words:
        click.echo(only_words, err=True)


@mem.command(epilog=examples("aios mem add 'The user eats no meat' --scope shared --tag food"))
@click.argument("text", type=Words())
@click.option("--scope", type=click.Choice(SCOPES[1:]), default="shared", show_default=True)
@click.option("--tag", "tags", multiple=True)
@click.option(
    "--importance", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="0 to 1."
)
@click.option("--source", default="", help="Where it is from.")
@click.option(
    "--from",
    "valid_from_unix_s",
    type=Moment(),
    help="It holds from then on (2026-12-24T18:00, +2d).",
)
@click.option("--until", "valid_to_unix_s", type=Moment(), help="It holds until then.")
@click.option("--expires", "expires_unix_s", type=Moment(), help="It is forgotten then.")
@json_option
def add(
    *,
    text: str,
    scope: ScopeName,
    tags: tuple[str, ...],
    importance: float,
    source: str,
    valid_from_unix_s: float | None,
    valid_to_unix_s: float | None,
    expires_unix_s: float | None,
    as_json: bool,
) -> None:
    """Keep a note."""
    options: RememberOptions = {
        "scope": scope,
        "tags": tags,
        "importance": importance,
        "source": source,
    }
    if valid_from_unix_s is not None:
        options["valid_from_unix_s"] = valid_from_unix_s
    if valid_to_unix_s is not None:
        options["valid_to_unix_s"] = valid_to_unix_s
    if expires_unix_s is not None:
        options["expires_unix_s"] = expires_unix_s
    with connect() as client:
        note = client.memory.remember(text, **options)
    write_json({"id": note}) if as_json else click.echo(f"note {note}")


@mem.command(epilog=examples("aios mem update 12 'The user eats fish again' --importance 0.8"))
@click.argument("note", metavar="ID", type=NoteNumber())
@click.argument("text", type=Words())
@click.option(
    "--tag", "tags", multiple=True, help="Its tags; those of the old note if none is given."
)
@click.option("--importance", type=click.FloatRange(0, 1), help="0 to 1; that of the old note.")
@click.option("--source", default="", help="Where it is from.")
@json_option
def update(
    *,
    note: int,
    text: str,
    tags: tuple[str, ...],
    importance: float | None,
    source: str,
    as_json: bool,
) -> None:
    """Put a new note in the place of one, which is kept and marked."""
    options: UpdateOptions = {"source": source}
    if tags:
        options["tags"] = tags
    if importance is not None:
        options["importance"] = importance
    with connect() as client:
        new = client.memory.update(note, text, **options)
    write_json({"id": new}) if as_json else click.echo(f"note {new}")


@mem.command(epilog=examples("aios mem tag 12 --add food --remove meat"))
@click.argument("note", metavar="ID", type=NoteNumber())
@click.option("--add", multiple=True, metavar="TAG")
@click.option("--remove", multiple=True, metavar="TAG")
@json_option
def tag(*, note: int, add: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
    """Give a note tags, and take some away; it stays the same note."""
    if not (add or remove):
        raise click.UsageError("nothing to do: say --add TAG or --remove TAG")
    if both := sorted({*add} & {*remove}):
        raise click.UsageError(f"{both[0]!r} cannot be both added and removed")
    with connect() as client:
        found = client.memory.tag(note, add=add, remove=remove).note
    if as_json:
        write_json(found)
    else:
        click.echo(f"note {note}: {printable(', '.join(found.tags)) or 'no tags'}")


@mem.command(epilog=examples("aios mem link 12 7", "aios mem link 12 7 --off"))
@click.argument("note", metavar="ID", type=NoteNumber())
@click.argument("to", metavar="ID", type=NoteNumber())
@click.option("--off", is_flag=True, help="Link them no longer.")
@json_option
def link(*, note: int, to: int, off: bool, as_json: bool) -> None:
    """Link two notes, in both directions."""
    with connect() as client:
        client.memory.link(note, to, is_on=not off)
        links = client.memory.get(note).links
    if as_json:
        write_json({"id": note, "links": links})
    else:
        click.echo(f"note {note} is linked with {', '.join(map(str, links)) or 'none'}")


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
        ("scope", _scope(found)),
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
    silent = "none" if used.setting == "none" else "none, or it has not answered yet"
    click.echo(f"embedder  {used.embedder or silent}")
    click.echo(f"waiting   {counted(used.n_waiting, 'note')} without a vector of it yet")


@mem.command(epilog=examples("aios mem forget 12"))
@click.argument("notes", metavar="ID...", type=NoteNumber(), nargs=-1, required=True)
@json_option
def forget(*, notes: tuple[int, ...], as_json: bool) -> None:
    """Delete notes, and all those whose place they took; none if one of them is not there."""
    with connect() as client:
        for note in notes:
            client.memory.get(note)
        gone: set[int] = set()
        for note in notes:
            if note in gone:  # another of them took its place
                continue
            ids = client.memory.forget(note)
            gone.update(ids)
            if as_json:
                write_json({"ids": ids})
            else:
                click.echo(f"forgot {', '.join(map(str, ids))}")


mem.add_command(export)
mem.add_command(import_)
mem.add_command(records)


def _row(note: Note) -> list[str]:
    by = printable(f"{note.origin.owner}/{note.origin.name}")
    tags = printable(",".join(note.tags))
    return [str(note.id), printable(_scope(note)), by, tags, _shown(note.text)]


def _scope(note: Note) -> str:
    """Who may read a note."""
    return f"{note.scope.value} {note.agent}".rstrip()


def _span(begin_unix_s: float, end_unix_s: float | None) -> str:
    end = "" if end_unix_s is None else f" to {moment(end_unix_s)}"
    return f"from {moment(begin_unix_s)}{end}"


def _shown(text: str) -> str:
    """A text on one line, cut."""
    return shortened(" ".join(printable(text).split()), SHOWN_CHARS)
