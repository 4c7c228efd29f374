"""The verb `mail`: the owner's mailbox, to talk with processes that send and receive letters."""

import click

from aios.abi.mail import Letter
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import printable, write_json
from aios.sdk.blocking import connect


@click.group()
def mail() -> None:
    """Read and write letters as the owner, who is process 1."""


@mail.command(
    epilog=examples("aios mail send editor 'two pages at most'", "aios mail send 12 hi --receipt")
)
@click.argument("receiver", metavar="ID")
@click.argument("body", metavar="TEXT")
@click.option(
    "--reply-to", type=int, default=0, help="The number of the letter that this one answers."
)
@click.option("--receipt", is_flag=True, help="Ask for a letter once this one was read.")
@json_option
def send(*, receiver: str, body: str, reply_to: int, receipt: bool, as_json: bool) -> None:
    """Put a letter into the mailbox of process ID (a pid, a name, or the unique beginning of a name)."""
    with connect() as client:
        process = find_process(receiver, client.ps(include_ended=True))
        letter_id = client.mail.send(process.pid, body, reply_to=reply_to, wants_receipt=receipt)
    if as_json:
        write_json({"id": letter_id, "to": process.pid})
    else:
        click.echo(f"letter {letter_id} to {process.name} ({process.pid})")


@mail.command(epilog=examples("aios mail read", "aios mail read --wait 60 --json | jq -r .body"))
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0.1), help="Wait up to so many seconds for a letter."
)
@json_option
def read(*, wait_s: float | None, as_json: bool) -> None:
    """Take the letters out of the owner's mailbox and show them; with --wait, wait until one is there."""
    with connect() as client:
        if wait_s is not None:
            _show(client.mail.receive(deadline_s=wait_s), as_json=as_json)
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
    refused = f", {published.n_refused} mailboxes were full" if published.n_refused else ""
    click.echo(f"{published.n_delivered} received it{refused}")


def _show(letter: Letter, *, as_json: bool) -> None:
    if as_json:
        write_json(letter)
        return
    about = f" on {letter.topic}" if letter.topic else ""
    about += f" in answer to {letter.reply_to}" if letter.reply_to else ""
    head = f"{letter.id} from {letter.sender_name} ({letter.sender}){about}"
    click.echo(f"{click.style(printable(head), bold=True)}: {printable(letter.body)}")
