"""`aios fs do`: a command about files in plain words, shown as a plan before anything is done."""

import sys

import click

from aios.cli.connecting import connect
from aios.cli.exits import ExitCode
from aios.cli.options import examples, json_option
from aios.cli.output import printable, write_json
from aios.sdk.filecommand import Outcome
from aios.sdk.fileplan import FilePlan


@click.command(
    epilog=examples(
        "aios fs do 'move the travel notes to archive'",
        "aios fs do 'delete all drafts' --dry-run",
        "aios fs do 'purge /shared/old.md' --yes",
    )
)
@click.argument("command")
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@click.option(
    "-y",
    "--yes",
    is_flag=True,
    help="Do it without asking, also a guess and what cannot be undone.",
)
@click.option("--model", default="", help="Which model plans; the default one unless you say.")
@json_option
def do(*, command: str, dry_run: bool, yes: bool, model: str, as_json: bool) -> None:
    """Do what COMMAND says with files. A model makes a plan of it, which is shown; a small one may be wrong.

    On a terminal you are asked before anything is changed. Elsewhere what can be undone is done; what cannot, and a guess, needs --yes.
    """
    with connect() as client:
        plan = client.files.plan(command, model=model)
        if not as_json:
            _show(plan)
        if dry_run or not plan.is_ready:
            outcome = Outcome(plan, fault="" if dry_run else "; ".join(plan.problems))
        else:
            is_asked = not yes and not as_json and sys.stdin.isatty() and sys.stderr.isatty()
            if is_asked:
                click.confirm("do it?", abort=True, err=True)
            outcome = client.files.carry_out(plan, consents=yes or is_asked)
    if as_json:
        write_json(outcome)
    else:
        for line in outcome.done:
            click.echo(printable(line))
        if outcome.done and outcome.fault:
            click.echo(f"then it ended: {printable(outcome.fault)}", err=True)
        elif outcome.fault:
            click.echo("nothing was done", err=True)
    if outcome.fault:
        click.get_current_context().exit(ExitCode.FAILED)


def _show(plan: FilePlan) -> None:
    """The plan on stderr, for stdout has what happened."""
    for number, step in enumerate(plan.steps, 1):
        why = click.style(f"  ({printable(step.why)})" if step.why else "", dim=True)
        guess = click.style("  a guess", fg="yellow") if step.is_guess else ""
        click.echo(f"{number}. {printable(step.said())}{guess}{why}", err=True)
    for problem in plan.problems:
        click.echo(f"problem: {printable(problem)}", err=True)
