"""The verb `recover`: processes that were not started again after the kernel ended, because somebody must decide."""

from typing import get_args

import click

from aios.abi.recovery import Choice
from aios.cli.connecting import connect
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import printable, write_json


@click.group()
def recover() -> None:
    """Decide about processes that were cut off when the kernel ended."""


@recover.command("ls", epilog=examples("aios recover ls", "aios recover ls --json"))
@json_option
def list_questions(*, as_json: bool) -> None:
    """List the processes that wait for a decision, why, and the answers that there are."""
    with connect() as client:
        found = client.repeatable.questions()
    for question in found:
        if as_json:
            write_json(question)
            continue
        click.echo(click.style(f"{question.pid} {printable(question.name)}", bold=True))
        click.echo(f"  {printable(question.why)}")
        click.echo(f"  aios recover answer {question.pid} {'|'.join(question.choices)}")


@recover.command(epilog=examples("aios recover answer mailer done", "aios recover answer 7 fresh"))
@click.argument("process", metavar="ID")
@click.argument("choice", type=click.Choice(get_args(Choice)))
@json_option
def answer(*, process: str, choice: Choice, as_json: bool) -> None:
    r"""Decide what becomes of process ID.

    \b
    replay  start it; its calls are answered from the journal up to where it was
    again   the same, and what was cut off is done again
    done    the same, and what was cut off is taken as done
    fresh   start it from the beginning
    end     do not start it
    """
    with connect() as client:
        found = find_process(process, client.ps(include_ended=True))
        question = client.repeatable.answer(found.pid, choice)
    if as_json:
        write_json({"pid": question.pid, "choice": choice})
    else:
        click.echo(f"{question.name} ({question.pid}): {choice}")
