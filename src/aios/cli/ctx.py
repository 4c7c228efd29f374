"""The verb `ctx`: contexts, the conversations that the kernel keeps, and their snapshots."""

import time

import click

from aios.abi.contexts import ContextInfo, SnapshotInfo, WindowPolicy
from aios.abi.types import Message
from aios.cli.connecting import connect
from aios.cli.ids import MAX_CANDIDATES
from aios.cli.options import examples, json_option
from aios.cli.output import (
    Column,
    counted,
    printable,
    short_count,
    short_size,
    write_json,
    write_table,
)
from aios.errors import InvalidCall
from aios.sdk.blocking import Client
from aios.sdk.blocking_contexts import BlockingContext

CONTEXT_COLUMNS = (
    Column("ID", is_number=True),
    Column("PID", is_number=True),
    Column("PROCESS"),
    Column("MESSAGES", is_number=True),
    Column("TOKENS", is_number=True),
    Column("SIZE", is_number=True),
    Column("WINDOW"),
    Column("PAGES", is_number=True),
    Column("STATE"),
)
SNAPSHOT_COLUMNS = (
    Column("NAME"),
    Column("MESSAGES", is_number=True),
    Column("SIZE", is_number=True),
    Column("SAVED"),
    Column("MODEL"),
)
POLICIES = [policy.value for policy in WindowPolicy if policy is not WindowPolicy.NONE]

NUMBER = click.IntRange(1, 2**63 - 1)
"""What fits into a call."""

MAX_DIGITS = 18


def _digits(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    is_number = value is None or (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS)
    if not is_number:
        raise click.BadParameter(f"{value!r} is no number of a context; see `aios ctx ls`")
    return value


context_argument = click.argument("reference", metavar="CONTEXT", callback=_digits)


@click.group()
def ctx() -> None:
    """List, read, save and shorten the contexts of processes.

    CONTEXT is a number of `aios ctx ls`, or its last digits if no other ends so.
    """


@ctx.command(epilog=examples("aios ctx ls", "aios ctx ls --snapshots", "aios ctx ls --json"))
@click.option("--snapshots", "is_snapshots", is_flag=True, help="List the snapshots instead.")
@json_option
def ls(*, is_snapshots: bool, as_json: bool) -> None:
    """List the contexts that are open, or the snapshots of contexts on disk."""
    with connect() as client:
        if is_snapshots:
            _write_snapshots(client.contexts.snapshots(), as_json=as_json)
            return
        contexts = client.contexts.list_all()
        names = {process.pid: process.name for process in client.ps(include_ended=True)}
    if as_json:
        for info in contexts:
            write_json(info)
        return
    write_table(CONTEXT_COLUMNS, [_row(info, names.get(info.pid, "")) for info in contexts])


@ctx.command(epilog=examples("aios ctx show 3", "aios ctx show 3 --json | jq -r .content"))
@context_argument
@click.option("--pointer", type=NUMBER, help="Show what was paged out under it.")
@json_option
def show(*, reference: str, pointer: int | None, as_json: bool) -> None:
    """Print the messages of a context."""
    with connect() as client:
        context = _find(client, reference)
        messages = context.messages() if pointer is None else context.fault(pointer)
    for message in messages:
        if as_json:
            write_json(message)
        else:
            click.echo(_told(message))


@ctx.command(epilog=examples("aios ctx snapshot 3 interview"))
@context_argument
@click.argument("name")
@click.option("--replace", "is_replacing", is_flag=True, help="Replace one of that name.")
@json_option
def snapshot(*, reference: str, name: str, is_replacing: bool, as_json: bool) -> None:
    """Keep context CONTEXT, by its number in `aios ctx ls`, on disk under NAME; it survives the kernel.

    NAME is for you to choose: letters, digits and . _ -. What is kept is the context as it is now, its messages and what the model has computed of them;
    the context itself goes on, and what is said in it later is not in the snapshot. `aios ctx restore NAME` makes a new context of it, as often as you like.
    A name that is taken is refused without --replace.
    """
    with connect() as client:
        info = _find(client, reference).snapshot(name, is_replacing=is_replacing)
    if as_json:
        write_json(info)
        return
    click.echo(f"{info.name}: {counted(info.n_messages, 'message')}, {short_size(info.size_bytes)}")


@ctx.command(epilog=examples("aios ctx restore interview", "aios ctx restore interview --text"))
@click.argument("name")
@click.option("--text", "is_text_only", is_flag=True, help="For another model than wrote it.")
@json_option
def restore(*, name: str, is_text_only: bool, as_json: bool) -> None:
    """Make a context of the snapshot NAME; it belongs to the owner, who is process 1."""
    with connect() as client:
        info = client.contexts.restore(name, is_text_only=is_text_only).stat()
    _write_made(info, as_json=as_json)


@ctx.command(epilog=examples("aios ctx fork 3"))
@context_argument
@json_option
def fork(*, reference: str, as_json: bool) -> None:
    """Make a second context with the same messages; it belongs to the owner, who is process 1."""
    with connect() as client:
        info = _find(client, reference).fork().stat()
    _write_made(info, as_json=as_json)


@ctx.command(
    epilog=examples("aios ctx compact 3", "aios ctx compact 3 --policy summarise --tokens 500")
)
@context_argument
@click.option(
    "--policy", type=click.Choice(POLICIES), help="What becomes of old turns; else the context's."
)
@click.option("--tokens", "target_tokens", type=NUMBER, help="How many may stay.")
@json_option
def compact(
    *, reference: str, policy: str | None, target_tokens: int | None, as_json: bool
) -> None:
    """Let the oldest turns leave a context; `aios ctx undo` brings them back."""
    with connect() as client:
        done = _find(client, reference).compact(policy, target_tokens=target_tokens)
    if as_json:
        write_json(done)
        return
    what = done.compaction
    if not what.n_messages:
        click.echo("nothing left it: it is short enough, or a note would be longer")
        return
    about = "about " if what.is_estimated else ""
    pointer = f", pointer {done.pointer}" if done.pointer else ""
    click.echo(
        f"{what.what}: {counted(what.n_messages, 'message')} left; {about}{what.n_tokens_before} -> {what.n_tokens_after} tokens{pointer}"
    )


@ctx.command(epilog=examples("aios ctx undo 3"))
@context_argument
@json_option
def undo(*, reference: str, as_json: bool) -> None:
    """Undo the last compaction of a context."""
    with connect() as client:
        info = _find(client, reference).undo()
    if as_json:
        write_json(info)
        return
    n_left = len(info.compactions)
    click.echo(f"{counted(info.n_messages, 'message')}; {n_left} more to undo")


@ctx.command(epilog=examples("aios ctx rm 3", "aios ctx rm --snapshot interview"))
@click.argument("reference", metavar="CONTEXT", callback=_digits, required=False)
@click.option("--snapshot", "name", help="Remove the snapshot of that name instead.")
@json_option
def rm(*, reference: str | None, name: str | None, as_json: bool) -> None:
    """Close a context, or remove a snapshot."""
    if (reference is None) == (name is None):
        raise click.UsageError("name a CONTEXT, or a snapshot with --snapshot NAME")
    context_id = None
    with connect() as client:
        if name is not None:
            client.contexts.forget(name)
        elif reference is not None:
            context = _find(client, reference)
            context.stat()  # closing what is not there is nothing; here somebody meant something by it
            context.close()
            context_id = context.id
    if as_json:
        write_json({"context": context_id, "snapshot": name, "done": True})


def _find(client: Client, reference: str) -> BlockingContext:
    """The context of that number, or the only one whose number ends so.

    Raises:
        InvalidCall: Several do; the message lists them.
    """
    ids = [info.id for info in client.contexts.list_all()]
    found = [each for each in ids if str(each).endswith(reference)]
    if int(reference) in ids or not found:
        return client.contexts.get(int(reference))
    if len(found) > 1:
        listed = ", ".join(map(str, found[:MAX_CANDIDATES]))
        raise InvalidCall(
            f"{len(found)} contexts have a number that ends in {reference}: {listed}",
            hint="give more of its digits",
        )
    return client.contexts.get(found[0])


def _row(info: ContextInfo, name: str) -> list[str]:
    state = "writing" if info.writer is not None else "idle"
    if info.unanswered:
        state = f"{counted(len(info.unanswered), 'tool call')} open"
    return [
        str(info.id),
        str(info.pid),
        printable(name),
        short_count(info.n_messages),
        short_count(info.n_tokens) if info.n_tokens else "",
        short_size(info.size_bytes),
        info.window.value,
        str(info.n_pages or ""),
        state,
    ]


def _write_snapshots(snapshots: tuple[SnapshotInfo, ...], *, as_json: bool) -> None:
    if as_json:
        for info in snapshots:
            write_json(info)
        return
    rows = [
        [
            info.name,
            short_count(info.n_messages),
            short_size(info.size_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(info.saved_unix_s)),
            printable(info.model or info.fingerprint),
        ]
        for info in snapshots
    ]
    write_table(SNAPSHOT_COLUMNS, rows)


def _write_made(info: ContextInfo, *, as_json: bool) -> None:
    if as_json:
        write_json(info)
        return
    click.echo(f"context {info.id}: {counted(info.n_messages, 'message')}")


def _told(message: Message) -> str:
    """A message for people; what it holds cannot move the cursor."""
    calls = [f"-> {call.name} {call.arguments} ({call.id})" for call in message.tool_calls]
    answered = f" ({message.tool_call_id})" if message.tool_call_id else ""
    head = click.style(f"{message.role.value}{printable(answered)}:", bold=True)
    return "\n".join([f"{head} {printable(message.text())}", *map(printable, calls)])
