"""The verb `approvals`: what agents ask their owner, and the answers."""

import sys
import termios
from collections.abc import Sequence

import click
import msgspec

from aios.abi.approvals import (
    ALWAYS,
    BUDGET_RAISE,
    DENY,
    HUMAN_ASK,
    MCP_TRUST,
    ONCE,
    PROCESS,
    RECOVER,
    Approval,
    ApprovalState,
)
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import (
    Column,
    legible,
    printable,
    short_seconds,
    shortened,
    write_json,
    write_table,
)
from aios.cli.patience import follow_patiently
from aios.errors import (
    AiosError,
    DeadlineExceeded,
    KernelStopping,
    KernelUnreachable,
    NotFound,
)
from aios.sdk.blocking import Client

COLUMNS = (
    Column("ID", is_number=True),
    Column("PROCESS"),
    Column("ASKS FOR"),
    Column("TAINT"),
    Column("STATE"),
    Column("ANSWER"),
    Column("EXPIRES", is_number=True),
)
SHOWN_CHARS = 70
TAINT_CHARS = 30
UNKNOWN_SOURCE = "outside"
"""The process that asked is gone, and with it where the data came from."""
ABOUT_MORE = frozenset({BUDGET_RAISE, MCP_TRUST, RECOVER})
"""What is asked about is not the call alone, so its arguments say less than the reason."""
LONGEST_S = 31_536_000.0
"""What is open for longer than the knob allows does not expire."""
LOOK_S = 30.0
"""Without an event the open questions are looked at so often: some expire."""


@click.group(invoke_without_command=True, epilog=examples("aios approvals", "aios approvals ls"))
@json_option
@click.pass_context
def approvals(context: click.Context, *, as_json: bool) -> None:
    """Answer what agents ask before they do what cannot be undone, or spend more than they may.

    Alone and on a terminal, wait for questions and ask you each; without a terminal, list them.
    """
    if context.invoked_subcommand is None:
        is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        context.invoke(watch if is_terminal else ls, as_json=as_json)


@approvals.command(epilog=examples("aios approvals ls", "aios approvals ls --all --json"))
@click.option("--all", "is_all", is_flag=True, help="Also answers that hold, and what is over.")
@json_option
def ls(*, is_all: bool = False, as_json: bool = False) -> None:
    """List the questions that wait for an answer.

    TAINT is where data came from outside that has reached who asks, and may speak out of the question.
    """
    with connect() as client:
        found = client.approvals.list(include_over=is_all)
        now_unix_s = client.repeatable.now()
        taints = _taints(client, found)
    if as_json:
        for each in found:
            _write(each, taints[each.id])
        return
    if found:
        write_table(COLUMNS, [_row(each, taints[each.id], now_unix_s) for each in found])


@approvals.command(epilog=examples("aios approvals show 7"))
@click.argument("number", metavar="ID", type=click.IntRange(1))
@json_option
def show(*, number: int, as_json: bool) -> None:
    """Show question ID with its exact arguments."""
    with connect() as client:
        found = _get(client, number)
        taint = _taints(client, [found])[number]
    if as_json:
        _write(found, taint)
    else:
        _show(found, taint)


@approvals.command(
    epilog=examples("aios approvals allow 7", "aios approvals allow 7 --process --json")
)
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.option("--once", "scope", flag_value=ONCE, default=True, help="This call alone; the usual.")
@click.option(
    "--process", "scope", flag_value=PROCESS, help="Whenever this process repeats exactly this."
)
@click.option(
    "--always",
    "scope",
    flag_value=ALWAYS,
    help="Whenever this program does exactly this, until a file in its folder changes.",
)
@json_option
def allow(*, number: int, scope: str, as_json: bool) -> None:
    """Say yes to question ID."""
    _answer(number, scope, as_json=as_json)


@approvals.command(epilog=examples("aios approvals deny 7"))
@click.argument("number", metavar="ID", type=click.IntRange(1))
@json_option
def deny(*, number: int, as_json: bool) -> None:
    """Say no to question ID; its process hears no also when it asks the same again."""
    _answer(number, DENY, as_json=as_json)


@approvals.command(
    epilog=examples('aios approvals answer 8 "the blue one"', "aios approvals answer 9 5000")
)
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.argument("answer", metavar="TEXT")
@json_option
def answer(*, number: int, answer: str, as_json: bool) -> None:
    """Answer question ID in words, with one of its choices, or with a number: how much more a process may spend."""
    _answer(number, answer, as_json=as_json)


@approvals.command(epilog=examples("aios approvals revoke 7"))
@click.argument("number", metavar="ID", type=click.IntRange(1))
@json_option
def revoke(*, number: int, as_json: bool) -> None:
    """Take the answer to question ID back; the next call of that kind is asked about again."""
    with connect() as client:
        _tell(client.approvals.revoke(number), as_json=as_json)


@approvals.command(epilog=examples("aios approvals watch", "aios approvals watch --json"))
@json_option
def watch(*, as_json: bool = False) -> None:
    """Wait for questions until Ctrl-C; on a terminal, ask you each. With --json a line for each, unanswered.

    It goes on when a kernel that was killed is started again.
    """
    is_asking = not as_json and sys.stdin.isatty()
    seen: set[tuple[int, float]] = set()

    def watch_all(client: Client) -> None:
        after = client.journal.events(is_waiting=False).last
        while True:
            for each in client.approvals.list():
                if (each.id, each.asked_unix_s) in seen:
                    continue
                taint = _taints(client, [each])[each.id]
                if as_json:
                    _write(each, taint)
                else:
                    _show(each, taint)
                if is_asking:
                    _ask(client, each)
                seen.add((each.id, each.asked_unix_s))
            after = _wait(client, after)

    follow_patiently(watch_all, is_patient=True)


def _wait(client: Client, after: int) -> int:
    """Return when something happened, or after a while."""
    try:
        return client.journal.events(after=after, deadline_s=LOOK_S).last
    except DeadlineExceeded:
        return after


def _ask(client: Client, question: Approval) -> None:
    """Let who sits there answer; an empty answer leaves it open."""
    termios.tcflush(
        sys.stdin, termios.TCIFLUSH
    )  # what was typed before it was shown answers something else
    prompt = legible("/".join(question.choices)).replace("\n", "\\n") or "your answer"
    if question.action == BUDGET_RAISE:
        prompt += "/NUMBER"
    said = click.prompt(f"  {prompt} (empty: later)", default="", show_default=False).strip()
    if not said:
        return
    try:
        _tell(client.approvals.answer(question.id, said), as_json=False)
    except (KernelStopping, KernelUnreachable):
        raise  # the next kernel has the same question
    except AiosError as error:
        click.echo(printable(f"  {error.message}; {error.hint}"), err=True)


def _answer(number: int, said: str, *, as_json: bool) -> None:
    with connect() as client:
        _tell(client.approvals.answer(number, said), as_json=as_json)


def _tell(found: Approval, *, as_json: bool) -> None:
    if as_json:
        write_json(found)
    else:
        said = "" if found.said in ("", DENY) else f": {legible(found.said)}"
        click.echo(f"question {found.id} of {found.name} is {found.state.value}{said}")


def _get(client: Client, number: int) -> Approval:
    for each in client.approvals.list(include_over=True):
        if each.id == number:
            return each
    raise NotFound(f"no question {number}", hint="`aios approvals ls --all` lists them")


def _taints(client: Client, questions: Sequence[Approval]) -> dict[int, str]:
    """Where what came from outside came from, by question; empty where nothing did.

    A question in words has no mark of its own, so that of its process counts. A process keeps the first source, so it is that of its questions, too.
    """
    sources = {p.pid: p.taint.source for p in client.ps(include_ended=True) if p.taint is not None}
    return {
        each.id: sources.get(each.pid, UNKNOWN_SOURCE)
        if each.is_tainted
        else sources.get(each.pid, "") * (each.action == HUMAN_ASK)
        for each in questions
    }


def _write(each: Approval, taint: str) -> None:
    """A question as JSON, with its `taint`."""
    write_json({**msgspec.to_builtins(each), "taint": taint})


def _row(each: Approval, taint: str, now_unix_s: float) -> tuple[str, ...]:
    what = f"{each.action} {each.resource} {each.arguments}"
    if not each.arguments or each.action in ABOUT_MORE:
        what = each.why
    left = ""
    if each.state is ApprovalState.OPEN:
        left_s = each.expires_unix_s - now_unix_s
        left = short_seconds(left_s) if left_s <= LONGEST_S else "never"
    return (
        str(each.id),
        legible(f"{each.name} ({each.pid})"),
        legible(shortened(" ".join(what.split()), SHOWN_CHARS)),
        click.style(legible(shortened(taint, TAINT_CHARS)), fg="red"),
        each.state.value,
        legible(shortened(each.said, SHOWN_CHARS)),
        left,
    )


def _show(each: Approval, taint: str) -> None:
    click.echo(click.style(f"{each.id}  {legible(each.name)} ({each.pid})", bold=True))
    _say(f"{each.action} on {each.resource}, {each.effect}")
    if taint:
        _say(f"TAINTED: data from {taint} has reached it")
    _say(each.why)
    if each.arguments:
        _say(each.arguments)
    if each.state is ApprovalState.OPEN:
        _say(f"answers: {_answers(each)}")
        _say(_how(each))
    else:
        said = "" if each.said == DENY else each.said
        _say(" ".join(filter(None, (each.state.value, said, each.by and f"by {each.by}"))))


def _answers(each: Approval) -> str:
    """What may be answered."""
    more = ", or a number: how much more it may spend" if each.action == BUDGET_RAISE else ""
    return f"{' '.join(each.choices)}{more}" if each.choices else "in words"


def _how(each: Approval) -> str:
    """The commands that answer."""
    start, choices = "aios approvals", set(each.choices)
    if ONCE not in choices:
        return f"{start} answer {each.id} {'|'.join(each.choices) or 'TEXT'}"
    scopes = "".join(f" [--{scope}]" for scope in (PROCESS, ALWAYS) if scope in choices)
    number = f", {start} answer {each.id} NUMBER" if each.action == BUDGET_RAISE else ""
    return f"{start} allow {each.id}{scopes}{number}, {start} deny {each.id}"


def _say(text: str) -> None:
    """A line of a question; further lines of its text are set further in, so that they pass for none."""
    shown = legible(text).replace("\n", "\n    ")
    click.echo(f"  {shown}")
