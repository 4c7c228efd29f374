"""The verb `fs`: the files of agents, groups and everybody, as the owner sees them."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal

import click

from aios.abi.storage import MAX_PIECE_BYTES, Edited, FileCollect, FileInfo
from aios.cli.connecting import connect
from aios.cli.durations import Duration
from aios.cli.exits import ExitCode
from aios.cli.fs_delete import delete_all
from aios.cli.fs_do import do
from aios.cli.fs_links import links, make_link, unlink
from aios.cli.fs_mounts import mount, mounts, umount
from aios.cli.fs_quota import quota
from aios.cli.fs_search import group, index, join, search
from aios.cli.options import examples, json_option
from aios.cli.output import Column, counted, moment, printable, short_size, write_json, write_table
from aios.cli.progress import attended, bytes_bar
from aios.errors import Conflict, InvalidCall, NotFound
from aios.sdk.blocking import Client

PATH = click.argument("path")
PIECE_BYTES = 4 << 20
message_option = click.option("-m", "--message", default="", help="Shown with the version.")


@click.group(
    epilog=examples(
        "aios fs ls /agents/reader",
        "aios fs cat /shared/report.md",
        "aios fs rollback /shared/report.md --version 2",
    )
)
def fs() -> None:
    """Look at, change and bring back files of agents (/agents/NAME), groups (/groups/NAME), everybody (/shared) and mounts (/NAME)."""


@fs.command(epilog=examples("aios fs ls /shared", "aios fs ls -r / -n 100 --json | jq -r .path"))
@click.argument("path", default="/")
@click.option("-r", "--recursive", is_flag=True, help="All files below, without the folders.")
@click.option("-n", "--limit", type=click.IntRange(1), help="How many; all unless you say.")
@json_option
def ls(*, path: str, recursive: bool, limit: int | None, as_json: bool) -> None:
    """List a folder."""
    with connect() as client:
        found = client.files.list(path, is_deep=recursive, limit=limit and limit + 1)
        if not found:
            info = client.files.stat(path)
            found = [] if info.is_folder else [info]
    if limit is not None and len(found) > limit:
        found = found[:limit]
        click.echo(f"there is more; these are the first {limit}", err=True)
    if as_json:
        for info in found:
            write_json(info)
        return
    rows = [_row(info) for info in found]
    write_table(
        [
            Column("PATH"),
            Column("SIZE", is_number=True),
            Column("VERSION", is_number=True),
            Column("CHANGED"),
        ],
        rows,
    )


@fs.command(
    epilog=examples("aios fs cat /shared/report.md", "aios fs cat /shared/report.md --version 1")
)
@PATH
@click.option("--version", type=click.IntRange(1), help="An older version, also of a deleted file.")
@json_option
def cat(*, path: str, version: int | None, as_json: bool) -> None:
    """Write the content of a file to stdout, byte by byte as it is; with --json in pieces of base64."""
    with connect() as client:
        for piece in client.files.download(path, version=version):
            if as_json:
                write_json({"path": path, "data": piece})
            else:
                sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@fs.command(
    epilog=examples("aios fs put notes.txt /shared/notes.txt", "date | aios fs put - /shared/now")
)
@click.argument("source", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@PATH
@message_option
@json_option
def put(*, source: str, path: str, message: str, as_json: bool) -> None:
    """Copy a file of this machine, or stdin (-), to PATH, or into it if that is a folder; of any length."""
    with connect() as client:
        if source != "-":
            path = _into(client, path, Path(source).name)
        edited = client.files.upload(path, _read_local(source, shows=not as_json), message=message)
    _show_edited(edited, as_json=as_json)


@fs.command(epilog=examples("aios fs get /shared/report.md report.md"))
@PATH
@click.argument("target", type=click.Path())
@click.option("--version", type=click.IntRange(1), help="An older version, also of a deleted file.")
@click.option("-f", "--force", is_flag=True, help="Overwrite TARGET.")
@json_option
def get(*, path: str, target: str, version: int | None, force: bool, as_json: bool) -> None:
    """Copy a file to this machine. TARGET is complete or not there."""
    if target == "-":
        raise InvalidCall("- is no file", hint="`aios fs cat` writes to stdout")
    place = Path(target)
    if place.is_dir():
        place /= path.rpartition("/")[2]
    if place.exists() and not force:
        raise Conflict(f"{place} is there already", hint="overwrite it with --force")
    draft = place.with_name(f".{place.name}.part")
    try:
        with connect() as client, draft.open("wb") as out:
            n_bytes = _download(client, path, version, out, shows=not as_json)
        draft.replace(place)
    except OSError as error:
        raise InvalidCall(
            f"{place} cannot be written: {error.strerror}", hint="name another"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    if as_json:
        write_json({"path": path, "target": str(place), "size_bytes": n_bytes})
    else:
        click.echo(f"{place}: {short_size(n_bytes)}")


@fs.command(epilog=examples("aios fs mv /shared/draft.md /shared/report.md"))
@click.argument("source")
@click.argument("target")
@message_option
@json_option
def mv(*, source: str, target: str, message: str, as_json: bool) -> None:
    """Give a file or folder another path; if TARGET is a folder, it is moved into that."""
    with connect() as client:
        target = _into(client, target, source.rstrip("/").rpartition("/")[2])
        edited = client.files.move(source, target, message=message)
    _show_edited(edited, as_json=as_json)


@fs.command(epilog=examples("aios fs cp /shared/report.md /agents/reader/report.md"))
@click.argument("source")
@click.argument("target")
@message_option
@json_option
def cp(*, source: str, target: str, message: str, as_json: bool) -> None:
    """Copy a file or folder, into TARGET if that is a folder; its content is not stored twice."""
    with connect() as client:
        target = _into(client, target, source.rstrip("/").rpartition("/")[2])
        edited = client.files.copy(source, target, message=message)
    _show_edited(edited, as_json=as_json)


@fs.command(epilog=examples("aios fs rm /shared/old.md", "aios fs rm -r /agents/reader"))
@PATH
@click.option("-r", "--recursive", is_flag=True, help="A folder with all below it.")
@message_option
@json_option
def rm(*, path: str, recursive: bool, message: str, as_json: bool) -> None:
    """Delete a file. Its versions stay until `purge`: `rollback` brings it back."""
    with connect() as client:
        if client.files.stat(path).is_folder and not recursive:
            is_root = path.strip("/").count("/") < 1
            hint = "it stays; name what is in it" if is_root else "delete all below it with -r"
            raise InvalidCall(f"{path} is a folder", hint=hint)
        for edited in delete_all(client, path, message):
            _show_edited(edited, as_json=as_json)


@fs.command(epilog=examples("aios fs versions /shared/report.md"))
@PATH
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, help="How many.")
@json_option
def versions(*, path: str, limit: int, as_json: bool) -> None:
    """Show the versions of a file, newest first: who, when, why."""
    with connect() as client:
        found = client.files.versions(path, limit=limit)
    if as_json:
        for version in found:
            write_json(version)
        return
    columns = [Column("VERSION", is_number=True), Column("SIZE", is_number=True)]
    columns += [Column(title) for title in ("WHEN", "PID", "AUTHOR", "MESSAGE")]
    rows = [
        [
            str(each.version),
            "deleted" if each.size_bytes is None else short_size(each.size_bytes),
            moment(each.unix_s),
            str(each.pid or "-"),
            printable(each.author),
            printable(each.message).replace("\n", " "),
        ]
        for each in found
    ]
    write_table(columns, rows)


@fs.command(epilog=examples("aios fs diff /shared/report.md", "aios fs diff /shared/report.md 1 3"))
@PATH
@click.argument("old", type=click.IntRange(0), required=False)
@click.argument("new", type=click.IntRange(1), required=False)
@json_option
def diff(*, path: str, old: int | None, new: int | None, as_json: bool) -> None:
    """Compare two versions of a text; the newest with the one before it, if none are named.

    Where too many lines are alike too often, whole pieces are shown as taken out and put in.
    """
    with connect() as client:
        text = client.files.diff(path, old, new)
    if as_json:
        write_json({"path": path, "diff": text})
    else:
        click.echo(printable(text), nl=False)


@fs.command(
    epilog=examples(
        "aios fs rollback /shared/report.md --version 2",
        "aios fs rollback /shared --at 2026-05-01T12:00",
        "aios fs rollback --process 17 --tree",
    )
)
@click.argument("path", default="")
@click.option("--version", type=click.IntRange(0), help="To this version; 0: to nothing.")
@click.option(
    "--at",
    type=click.DateTime(("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")),
    help="To this local time.",
)
@click.option("--transaction", type=click.IntRange(1), help="Undo this transaction.")
@click.option(
    "--process",
    type=click.IntRange(1),
    help="Undo all that this pid did under this kernel.",
)
@click.option("--tree", is_flag=True, help="With --process: also what all that it started did.")
@json_option
def rollback(
    *,
    path: str,
    version: int | None,
    at: datetime | None,
    transaction: int | None,
    process: int | None,
    tree: bool,
    as_json: bool,
) -> None:
    """Bring files back to what they were, as a new version. Give one of the options.

    What others have changed since is told and left: the exit code is then 6.
    """
    if sum(each is not None for each in (version, at, transaction, process)) != 1:
        raise InvalidCall(
            "say what to go back to: one of --version, --at, --transaction, --process",
            hint="`aios fs versions PATH` shows them",
        )
    if tree and process is None:
        raise InvalidCall("--tree goes with --process", hint="`aios ps --all` shows the pids")
    with connect() as client:
        edited = client.files.rollback(
            path,
            version=version,
            unix_s=None if at is None else at.timestamp(),
            transaction=transaction,
            pid=process,
            with_children=tree,
        )
    _show_edited(edited, as_json=as_json)
    if edited.left:
        click.get_current_context().exit(ExitCode.CONFLICT)


@fs.command(
    epilog=examples(
        "aios fs purge /shared/report.md --keep 3", "aios fs purge /agents/old --keep 0"
    )
)
@PATH
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=1,
    help="The newest so many stay; 1 unless you say. What a file holds now always does.",
)
@json_option
def purge(*, path: str, keep: int, as_json: bool) -> None:
    """Forget old versions of a file, or of all below a folder. This cannot be undone."""
    with connect() as client:
        purged = client.files.purge(path, keep=keep)
    if as_json:
        write_json(purged)
    else:
        click.echo(f"forgot {counted(purged.n_versions, 'version')}; `aios fs gc` frees the disk")


@fs.command(
    epilog=examples(
        "aios fs share /agents/ann/plan.md /agents/bob",
        "aios fs share /agents/ann/plan.md bob --access none",
        "aios fs share /agents/ann/plan.md --link --for 1h",
    )
)
@PATH
@click.argument("grantee", default="")
@click.option(
    "--access",
    type=click.Choice(["read", "write", "none"]),
    default="read",
    help="What is allowed.",
)
@click.option(
    "--link", is_flag=True, help="Print a link to the file instead; `aios fs unlink` ends it."
)
@click.option("--for", "lifetime_s", type=Duration(), default="1h", help="How long the link works.")
@json_option
def share(
    *,
    path: str,
    grantee: str,
    access: Literal["read", "write", "none"],
    link: bool,
    lifetime_s: float,
    as_json: bool,
) -> None:
    """Let an agent (NAME or /agents/NAME) or a group (/groups/NAME) at PATH and all below it; or make a link to it."""
    if link == bool(grantee):
        raise InvalidCall("give an agent or a group, or --link", hint="one of them")
    if link:
        make_link(path, lifetime_s, as_json=as_json)
        return
    with connect() as client:
        client.files.share(path, grantee, access)
        is_there = access == "none" or _is_there(client, path)
    if as_json:
        write_json({"path": path, "grantee": grantee, "access": access})
    else:
        click.echo(
            f"{grantee} may {access} {path}"
            if access != "none"
            else f"{path} is no longer shared with {grantee}"
        )
        if not is_there:
            click.echo(f"nothing is at {path} yet", err=True)


@fs.command(epilog=examples("aios fs watch /shared", "aios fs watch /notes --json | jq -r .path"))
@click.argument("path", default="/")
@click.option("--since", type=click.IntRange(0), help="From this change on; else from now.")
@json_option
def watch(*, path: str, since: int | None, as_json: bool) -> None:
    """Show changes of PATH, or of any file below it, as they come; until Ctrl-C."""
    with connect() as client, client.files.follow(path, since=since) as changes:
        n_missed = 0
        for each in changes:
            if changes.n_missed > n_missed:
                click.echo(f"missed {counted(changes.n_missed - n_missed, 'change')}", err=True)
                n_missed = changes.n_missed
            if as_json:
                write_json(each)
            else:
                what = "deleted" if each.size_bytes is None else short_size(each.size_bytes)
                click.echo(
                    f"{moment(each.unix_s)}  {printable(each.path)}  {what}  {printable(each.author)}"
                )


@fs.command(epilog=examples("aios fs df"))
@json_option
def df(*, as_json: bool) -> None:
    """Show what takes how much disk: the files now, and what is stored with all their versions."""
    with connect() as client:
        usages = client.files.usage()
    if as_json:
        write_json(usages)
        return
    columns = [Column("FOLDER")] + [
        Column(t, is_number=True) for t in ("FILES", "SIZE", "STORED", "QUOTA")
    ]
    rows = [
        [
            each.path,
            str(each.n_files),
            *(short_size(n) for n in (each.size_bytes, each.stored_bytes, each.quota_bytes)),
        ]
        for each in usages.usages
    ]
    write_table(columns, rows)
    click.echo(f"on disk in all: {short_size(usages.disk_bytes)}")


@fs.command(epilog=examples("aios fs gc"))
@json_option
def gc(*, as_json: bool) -> None:
    """Free the disk that no version needs any more."""
    with connect() as client:
        collected = attended(client.gate, FileCollect(), shows=not as_json)
    if as_json:
        write_json({"n_blobs": collected.n_versions, "size_bytes": collected.size_bytes})
    else:
        click.echo(
            f"freed {counted(collected.n_versions, 'blob')}, {short_size(collected.size_bytes)}"
        )


for verb in (mount, umount, mounts, links, unlink, search, group, join, index, do, quota):
    fs.add_command(verb)


def _into(client: Client, target: str, name: str) -> str:
    """The path for something called `name`: in the target if that is a folder, or is written like one."""
    is_folder = target.endswith("/")
    with suppress(NotFound):
        is_folder = is_folder or client.files.stat(target).is_folder
    return f"{target.rstrip('/')}/{name}" if is_folder else target


def _is_there(client: Client, path: str) -> bool:
    try:
        client.files.stat(path)
    except NotFound:
        return False
    return True


def _download(client: Client, path: str, version: int | None, out: BinaryIO, *, shows: bool) -> int:
    """Copy a file out, with a bar on a terminal if it is long; returns its length."""
    first = client.files.read_piece(path, offset=0, length=PIECE_BYTES, version=version)
    out.write(first.data)
    offset, whole = len(first.data), first.size_bytes
    with bytes_bar(path, whole, shows=shows and whole > offset) as moved:
        moved(offset)
        while offset < whole:
            piece = client.files.read_piece(
                path, offset=offset, length=PIECE_BYTES, version=first.version
            ).data
            out.write(piece)
            offset += len(piece)
            moved(len(piece))
    return offset


def _read_local(source: str, *, shows: bool) -> Iterator[bytes]:
    """A file or stdin in pieces, with a progress bar on a terminal if it is long."""
    assert PIECE_BYTES <= MAX_PIECE_BYTES
    if source == "-":
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            yield piece
        return
    place = Path(source)
    try:
        length = place.stat().st_size
        is_long = length > PIECE_BYTES
        with (
            place.open("rb") as file,
            bytes_bar(place.name, length, shows=shows and is_long) as moved,
        ):
            while piece := file.read(PIECE_BYTES):
                yield piece
                moved(len(piece))
    except OSError as error:
        raise NotFound(f"{source} cannot be read: {error.strerror}", hint="name another") from error


def _show_edited(edited: Edited, *, as_json: bool) -> None:
    if as_json:
        write_json(edited)
        return
    for each in edited.versions:
        what = "deleted" if each.size_bytes is None else short_size(each.size_bytes)
        click.echo(f"{each.path}: version {each.version}, {what}")
    if not edited.versions:
        click.echo("nothing has changed")
    for path in edited.left:
        why = "somebody else has changed it since, what it was is purged, a policy forbids it, or nothing is written there (`aios fs mounts`)"
        click.echo(f"{path} is left as it is: {why}", err=True)


def _row(info: FileInfo) -> list[str]:
    if info.is_folder:
        return [f"{info.path}/", "", "", ""]
    return [info.path, short_size(info.size_bytes), str(info.version), moment(info.changed_unix_s)]
