"""The verb `mail`: the owner's mailbox, to talk with processes that send and receive letters, and the dead letters."""

import click

from aios.abi.deadletters import DeadLetter
from aios.abi.mail import Letter
from aios.cli.connecting import connect
from aios.cli.durations import Seconds
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, write_json
from aios.errors import DeadlineExceeded
from aios.sdk.blocking import Client

urgent_option = click.option(
    "--urgent", "is_urgent", is_flag=True, help="Announce it at the receiver's next call."
)
receipt_option = click.option(
    "--receipt", is_flag=True, help="Ask for a letter once this one was read."
)
dead_option = click.option(
    "--dead-letter",
    "wants_dead_letter",
    is_flag=True,
    help="Keep it as a dead letter where it cannot be delivered, instead of failing.",
)


@click.group()
def mail() -> None:
    """Read and write letters as the owner, who is process 1."""


@mail.command(
    epilog=examples(
        "aios mail send editor 'two pages at most'",
        "aios mail send 12 hi --receipt",
        "aios mail send editor 'stop: wrong folder' --urgent",
    )
)
@click.argument("receiver", metavar="ID")
@click.argument("body", metavar="TEXT")
@click.option(
    "--reply-to", type=int, default=0, help="The number of the letter that this one answers."
)
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(),
    help="Wait so long for room in a full mailbox: 60 (seconds) or 5m.",
)
@receipt_option
@urgent_option
@dead_option
@json_option
def send(
    *,
    receiver: str,
    body: str,
    reply_to: int,
    wait_s: float | None,
    receipt: bool,
    is_urgent: bool,
    wants_dead_letter: bool,
    as_json: bool,
) -> None:
    """Put a letter into the mailbox of process ID (a pid, a name, or the unique beginning of a name)."""
    with connect() as client:
        process = find_process(receiver, client.ps(include_ended=True))
        letter_id = client.mail.send(
            process.pid,
            body,
            reply_to=reply_to,
            when_full="refuse" if wait_s is None else "wait",
            wants_receipt=receipt,
            is_urgent=is_urgent,
            wants_dead_letter=wants_dead_letter,
            deadline_s=wait_s,
        )
        is_dead = wants_dead_letter and _is_dead(client, letter_id)
    if as_json:
        write_json({"id": letter_id, "to": process.pid, "is_dead": is_dead})
    else:
        what = "dead letter" if is_dead else "letter"
        click.echo(f"{what} {letter_id} to {process.name} ({process.pid})")


@mail.command(epilog=examples("aios mail read", "aios mail read --wait 60 --json | jq -r .body"))
@click.option(
    "--wait", "wait_s", type=Seconds(), help="Wait so long for a letter: 60 (seconds) or 5m."
)
@json_option
def read(*, wait_s: float | None, as_json: bool) -> None:
    """Take the letters out of the owner's mailbox and show them, urgent ones first; with --wait, wait until one is there."""
    with connect() as client:
        if wait_s is not None:
            try:
                letter = client.mail.receive(deadline_s=wait_s)
            except DeadlineExceeded as error:
                raise DeadlineExceeded(
                    f"no letter within {wait_s:g} s", hint="`--wait` longer, or look again"
                ) from error
            _show(letter, as_json=as_json)
        n_left = 1
        while n_left:
            taken = client.mail.take()
            for letter in taken.letters:
                _show(letter, as_json=as_json)
            n_left = taken.n_left if taken.letters else 0


@mail.command(epilog=examples("aios mail publish news 'the folder has changed'"))
@click.argument("topic")
@click.argument("body", metavar="TEXT")
@json_option
def publish(*, topic: str, body: str, as_json: bool) -> None:
    """Send a letter to every process of the owner's that subscribes to TOPIC."""
    with connect() as client:
        published = client.mail.publish(topic, body)
    if as_json:
        write_json(published)
        return
    refused = (
        f", {counted(published.n_refused, 'mailbox', 'mailboxes')} full"
        if published.n_refused
        else ""
    )
    click.echo(f"{published.n_delivered} received it{refused}")


@mail.command(
    epilog=examples(
        "aios mail broadcast 'lunch at noon'",
        "aios mail broadcast 'stop now' --urgent --group Kind::guest",
    )
)
@click.argument("body", metavar="TEXT")
@click.option(
    "--group",
    default="",
    metavar="TYPE::NAME",
    help="Group::OWNER, Kind::program (task, guest) or Program::/folder; the owner's processes without.",
)
@receipt_option
@urgent_option
@dead_option
@json_option
def broadcast(
    *,
    body: str,
    group: str,
    receipt: bool,
    is_urgent: bool,
    wants_dead_letter: bool,
    as_json: bool,
) -> None:
    """Send a letter to every living process of a group, whether it subscribes to anything or not."""
    with connect() as client:
        told = client.mail.broadcast(
            body,
            group,
            is_urgent=is_urgent,
            wants_receipt=receipt,
            wants_dead_letter=wants_dead_letter,
        )
    if as_json:
        write_json(told)
        return
    refused = f", {counted(told.n_refused, 'mailbox', 'mailboxes')} full" if told.n_refused else ""
    dead = f", {counted(len(told.dead), 'dead letter')}" if told.dead else ""
    click.echo(f"{len(told.delivered)} received it{refused}{dead}")


@mail.command(epilog=examples("aios mail dead", "aios mail dead --json | jq .why"))
@json_option
def dead(*, as_json: bool) -> None:
    """Show the dead letters: those that could not be delivered, and whose senders wanted them kept."""
    with connect() as client:
        after: int | None = 0
        while after is not None:
            page = client.mail.dead(after=after)
            for each in page.letters:
                _show_dead(each, as_json=as_json)
            after = page.next_id


@mail.command(epilog=examples("aios mail resend 17", "aios mail resend 17 --to editor-2"))
@click.argument("letter_id", metavar="NUMBER", type=int)
@click.option("--to", "receiver", metavar="ID", help="To this process instead.")
@json_option
def resend(*, letter_id: int, receiver: str | None, as_json: bool) -> None:
    """Put dead letter NUMBER into the mailbox of its receiver, or of another, in the name of its sender."""
    with connect() as client:
        to = None
        if receiver is not None:
            to = find_process(receiver, client.ps(include_ended=True)).pid
        sent_id = client.mail.send_dead(letter_id, to)
    if as_json:
        write_json({"id": sent_id, "was": letter_id})
    else:
        click.echo(f"letter {sent_id}")


@mail.command(epilog=examples("aios mail drop 17"))
@click.argument("letter_ids", metavar="NUMBER...", type=int, nargs=-1, required=True)
@json_option
def drop(*, letter_ids: tuple[int, ...], as_json: bool) -> None:
    """Forget dead letters."""
    with connect() as client:
        for letter_id in letter_ids:
            client.mail.drop_dead(letter_id)
    if as_json:
        write_json({"dropped": letter_ids})


@mail.command(epilog=examples("aios mail box --json"))
@json_option
def box(*, as_json: bool) -> None:
    """Say what waits in the owner's mailbox, and what it may hold."""
    with connect() as client:
        found = client.mail.statistics()
    if as_json:
        write_json(found)
        return
    click.echo(
        f"{found.n_letters} of {found.max_letters} letters, {found.size_bytes} of {found.max_bytes} bytes"
    )
    click.echo(f"topics: {', '.join(found.topics) or 'none'}")


@mail.command(epilog=examples("aios mail subscribe child.exit", "aios mail subscribe news --off"))
@click.argument("topic")
@click.option("--off", "is_off", is_flag=True, help="No longer.")
@json_option
def subscribe(*, topic: str, is_off: bool, as_json: bool) -> None:
    """Let letters on TOPIC come to the owner's mailbox from now on."""
    with connect() as client:
        client.mail.subscribe(topic, is_on=not is_off)
        topics = client.mail.statistics().topics
    if as_json:
        write_json({"topics": topics})
    else:
        click.echo(f"topics: {', '.join(topics) or 'none'}")


def _is_dead(client: Client, letter_id: int) -> bool:
    found = client.mail.dead(after=letter_id - 1, limit=1).letters
    return bool(found) and found[0].letter.id == letter_id


def _show_dead(dead: DeadLetter, *, as_json: bool) -> None:
    if as_json:
        write_json(dead)
        return
    letter = dead.letter
    head = f"{letter.id} from {letter.sender_name} ({letter.sender}) to {letter.to}, {dead.why}"
    click.echo(f"{click.style(printable(head), bold=True)}: {printable(letter.body)}")


def _show(letter: Letter, *, as_json: bool) -> None:
    if as_json:
        write_json(letter)
        return
    about = f" on {letter.topic}" if letter.topic else ""
    about += ", urgent" if letter.is_urgent else ""
    about += f" in answer to {letter.reply_to}" if letter.reply_to else ""
    head = f"{letter.id} from {letter.sender_name} ({letter.sender}){about}"
    click.echo(f"{click.style(printable(head), bold=True)}: {printable(letter.body)}")
