"""`aios fs search`, `group`, `join` and `index`: finding files by what is in them."""

import sys
from contextlib import suppress
from datetime import datetime, timedelta

import click

from aios.abi.retrieval import MAX_PENDING, FileHit, GroupKey, IndexInfo
from aios.cli.connecting import connect
from aios.cli.durations import parse_duration
from aios.cli.meanings import why_only_words
from aios.cli.options import examples, json_option, limit_option
from aios.cli.output import (
    Column,
    counted,
    printable,
    short_size,
    shortened,
    write_json,
    write_table,
)
from aios.errors import DeadlineExceeded, InvalidCall
from aios.kernel.retrieval.formats import Form, is_known_type
from aios.sdk.blocking import Client

SHOWN_CHARS = 160
POLL_S = 1.0
GROUP_KEYS = ("folder", "type", "author", "day", "topic")


class Since(click.ParamType[datetime | timedelta]):
    """A local time, or how long ago: `2026-05-01`, `2026-05-01T12:00`, `90m`, `7d`."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        """A moment, or how long before now."""
        text = str(value)
        with suppress(ValueError):
            return timedelta(seconds=parse_duration(text))
        try:
            return datetime.fromisoformat(text).astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time; write 2026-05-01, 2026-05-01T12:00, 90m or 7d", param, ctx
            )


under_option = click.option("--under", default="", help="Only this file or folder.")
type_option = click.option(
    "--type", "type_", default="", help="An extension (md) or a kind (code, pdf)."
)
since_option = click.option("--since", type=Since(), help="Changed since: 2026-05-01 or 7d.")
keywords_option = click.option(
    "--keywords", default="", help="Words that must all be in the file, separated by commas."
)

wait_option = click.option("--wait", is_flag=True, help="Until all that was written is indexed.")


@click.command(
    epilog=examples(
        "aios fs search 'when does the train to Rome leave?'",
        "aios fs search budget --under /shared --type pdf --since 7d",
        "aios fs search --keywords 'invoice,2026' -n 50 --json",
    )
)
@click.argument("query", default="")
@limit_option(200)
@under_option
@type_option
@since_option
@keywords_option
@wait_option
@json_option
def search(
    *,
    query: str,
    limit: int,
    under: str,
    type_: str,
    since: datetime | timedelta | None,
    keywords: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Find files by words and by meaning, best first, each with the lines that fit and why."""
    with connect() as client:
        found = client.files.retrieve(
            query,
            limit,
            _listed(keywords),
            under=under,
            type=type_,
            since_unix_s=_unix_s(client, since),
            is_waiting=wait or _is_own_kernel(client),
        )
        only_words = why_only_words(client, found.embedder, "files")
        if not found.hits:
            _check_type(client, type_)
    for hit in found.hits:
        write_json(hit) if as_json else _show(hit)
    if not as_json:
        if not found.hits:
            click.echo("no file fits", err=True)
        _tell_state(found.n_pending, only_words)


@click.command(
    epilog=examples("aios fs group topic", "aios fs group author --under /shared --since 7d")
)
@click.argument("by", type=click.Choice(GROUP_KEYS))
@click.argument("query", default="")
@under_option
@type_option
@since_option
@keywords_option
@wait_option
@json_option
def group(
    *,
    by: GroupKey,
    query: str,
    under: str,
    type_: str,
    since: datetime | timedelta | None,
    keywords: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Put files into groups by folder, type, author, day or topic; with a QUERY only the files that fit best."""
    with connect() as client:
        found = client.files.group_by(
            by,
            query,
            keywords=_listed(keywords),
            under=under,
            type=type_,
            since_unix_s=_unix_s(client, since),
            is_waiting=wait or _is_own_kernel(client),
        )
        if not found.groups:
            _check_type(client, type_)
    if as_json:
        for each in found.groups:
            write_json(each)
        return
    rows = [
        [printable(each.key), str(each.n_files), short_size(each.size_bytes), _few(each.paths)]
        for each in found.groups
    ]
    columns = [Column(by.upper()), Column("FILES", is_number=True), Column("SIZE", is_number=True)]
    write_table([*columns, Column("FIRST")], rows)


@click.command(epilog=examples("aios fs join /shared/questions /shared/answers -n 3"))
@click.argument("left")
@click.argument("right")
@limit_option(20, default=1, about="How many of RIGHT for each of LEFT.")
@type_option
@wait_option
@json_option
def join(*, left: str, right: str, limit: int, type_: str, wait: bool, as_json: bool) -> None:
    """Find for each file below LEFT the files below RIGHT that are most like it."""
    with connect() as client:
        found = client.files.join(
            left, right, limit, type=type_, is_waiting=wait or _is_own_kernel(client)
        )
    for pair in found.pairs:
        if as_json:
            write_json(pair)
        else:
            why = click.style(f"({'; '.join(map(printable, pair.hit.why))})", dim=True)
            click.echo(f"{printable(pair.path)}  {_place(pair.hit)}  {pair.hit.score:.3f}  {why}")


@click.command(epilog=examples("aios fs index", "aios fs index --wait", "aios fs index --rebuild"))
@wait_option
@click.option("--rebuild", is_flag=True, help="Forget it and make it anew, in the background.")
@json_option
def index(*, wait: bool, rebuild: bool, as_json: bool) -> None:
    """Show how far the index of the files is; it follows every change by itself."""
    with connect() as client:
        if rebuild:
            client.files.reindex()
        info = client.files.index()
        if wait or _is_own_kernel(client):
            info = _wait(client, info, shows=not as_json)
        only_words = why_only_words(client, info.embedder, "files")
    if as_json:
        write_json(info)
        return
    click.echo(
        f"{counted(info.n_files, 'file')}, {info.n_text_files} with text in {counted(info.n_passages, 'passage')}, "
        f"{short_size(info.disk_bytes)} on disk"
    )
    for each in info.problems:
        how = "in part only" if each.is_partial else "by name only"
        click.echo(f"{how}: {printable(each.path)} ({printable(each.problem)})")
    if info.n_unlike and info.embedder:
        click.echo(f"without a vector yet: {counted(info.n_unlike, 'passage')}")
    if info.fault:
        click.echo(f"it stands still: {printable(info.fault)}", err=True)
    _tell_state(info.n_pending, only_words)


def _wait(client: Client, info: IndexInfo, *, shows: bool) -> IndexInfo:
    """Wait until nothing is pending, with a bar on a terminal."""
    hidden = not shows or not info.n_pending
    with click.progressbar(
        length=info.n_pending or 1,
        label="indexing",
        file=sys.stderr,
        hidden=hidden,
    ) as bar:
        while info.n_pending and not info.fault:
            before = info.n_pending
            info = _after_a_while(client)
            bar.update(max(0, before - info.n_pending))
    return info if info.fault else client.files.index(is_waiting=True)


def _after_a_while(client: Client) -> IndexInfo:
    """How far it is when it is done, or else after `POLL_S`."""
    try:
        return client.files.index(is_waiting=True, deadline_s=POLL_S)
    except DeadlineExceeded:
        return client.files.index()


def _check_type(client: Client, type_: str) -> None:
    """Refuse a type that neither is one nor an extension of any file.

    Raises:
        InvalidCall: It is not.
    """
    if not is_known_type(type_) and not client.files.group_by("type", type=type_).n_files:
        raise InvalidCall(
            f"no file is of the type {type_!r}",
            hint=f"types are {', '.join(Form)}, and the extensions of files, such as md",
        )


def _is_own_kernel(client: Client) -> bool:
    """Whether the kernel lives inside this command: nothing has followed the files before."""
    return client.info().embedded


def _listed(keywords: str) -> list[str]:
    return [word.strip() for word in keywords.split(",") if word.strip()]


def _show(hit: FileHit) -> None:
    why = click.style(f"({'; '.join(map(printable, hit.why))})", dim=True)
    click.echo(f"{hit.score:.3f}  {_place(hit)}  version {hit.version}  {why}")
    if text := " ".join(printable(hit.text).split()):
        click.echo(f"       {shortened(text, SHOWN_CHARS)}")


def _place(hit: FileHit) -> str:
    path = printable(hit.path)
    return f"{path}:{hit.first_line}-{hit.last_line}" if hit.first_line else path


def _few(paths: tuple[str, ...]) -> str:
    return ", ".join(printable(path) for path in paths[:3])


def _tell_state(n_pending: int, only_words: str) -> None:
    if n_pending:
        or_more = " or more" if n_pending >= MAX_PENDING else ""
        noun = "change is" if n_pending == 1 else "changes are"
        click.echo(f"{n_pending}{or_more} {noun} not indexed yet; --wait waits for that", err=True)
    if only_words:
        click.echo(only_words, err=True)


def _unix_s(client: Client, since: datetime | timedelta | None) -> float | None:
    """A moment by the clock of the kernel, which dates the files."""
    if isinstance(since, timedelta):
        info = client.info()
        return max(0.0, info.started_unix_s + info.uptime_s - since.total_seconds())
    return None if since is None else max(0.0, since.timestamp())
