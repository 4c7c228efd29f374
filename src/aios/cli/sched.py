"""The verb `sched`: how turns at engines are given."""

from pathlib import Path
from typing import get_args

import click

from aios.abi.sched import LaneInfo, PolicyName, SchedInfo
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import (
    Column,
    counted,
    printable,
    short_count,
    short_seconds,
    write_json,
    write_table,
)
from aios.kernel.scheduler.trace import encode_trace

COLUMNS = (
    Column("LANE"),
    Column("TURNS", is_number=True),
    Column("TAKEN", is_number=True),
    Column("QUEUED", is_number=True),
    Column("LONGEST", is_number=True),
    Column("CONTEXTS", is_number=True),
    Column("ROOM", is_number=True),
    Column("PREEMPTS"),
)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "aios sched",
        "aios sched set bvt --quantum 32",
        "aios sched weight alice 2.0",
        "aios sched record crowd.jsonl",
    ),
)
@json_option
@click.pass_context
def sched(ctx: click.Context, *, as_json: bool) -> None:
    """Show the scheduling policy, the weights of owners, and how busy each engine is.

    LONGEST is how long the call has waited that was queued first. CONTEXTS are the tokens of contexts that have begun and not
    ended; where they would outgrow ROOM, calls that have not begun wait.
    """
    if ctx.invoked_subcommand is None:
        with connect() as client:
            _show(client.sched.show(), as_json=as_json)


@sched.command(name="set", epilog=examples("aios sched set fair", "aios sched set rr --quantum 64"))
@click.argument("policy", type=click.Choice(get_args(PolicyName)))
@click.option(
    "--quantum",
    "quantum_tokens",
    type=click.IntRange(1, 65_536),
    help="Tokens after which a turn ends if somebody better waits.",
)
@json_option
def set_policy(*, policy: PolicyName, quantum_tokens: int | None, as_json: bool) -> None:
    """Let POLICY decide from now on, until the kernel ends; calls that wait are ranked anew."""
    with connect() as client:
        _show(client.sched.set(policy, quantum_tokens=quantum_tokens), as_json=as_json)


@sched.command(epilog=examples("aios sched weight alice 2.0", "aios sched weight alice 1"))
@click.argument("owner")
@click.argument("share", type=click.FloatRange(0.001, 1000))
@json_option
def weight(*, owner: str, share: float, as_json: bool) -> None:
    """Give OWNER that share under the policies `fair` and `bvt`; everybody else has 1."""
    with connect() as client:
        _show(client.sched.set(weights={owner: share}), as_json=as_json)


@sched.command(
    epilog=examples("aios sched record crowd.jsonl", "aios bench sched-sim --trace crowd.jsonl")
)
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@json_option
def record(*, file: Path, as_json: bool) -> None:
    """Write the calls that were served last to FILE, as a trace that `aios bench sched-sim` replays.

    It has times, counts of tokens, and the names of processes and owners; nothing of what was said.
    """
    with connect() as client:
        traced = client.sched.trace()
    file.write_bytes(encode_trace(traced.agents))
    n_calls = sum(len(agent.calls) for agent in traced.agents)
    if as_json:
        row = {"agents": len(traced.agents), "calls": n_calls, "dropped": traced.n_dropped}
        write_json({"file": str(file), **row})
    else:
        older = f"; without {traced.n_dropped} older" if traced.n_dropped else ""
        click.echo(f"{counted(n_calls, 'call')} of {counted(len(traced.agents), 'agent')}{older}")


def _show(about: SchedInfo, *, as_json: bool) -> None:
    if as_json:
        write_json(about)
        return
    click.echo(f"policy {about.policy}, quantum {counted(about.quantum_tokens, 'token')}")
    for owner, share in sorted(about.weights.items()):
        click.echo(printable(f"weight {share:g} for {owner}"))
    if about.lanes:
        write_table(COLUMNS, [_row(lane) for lane in about.lanes])


def _row(lane: LaneInfo) -> list[str]:
    return [
        lane.resource,
        str(lane.capacity),
        str(lane.n_granted),
        str(lane.n_queued),
        short_seconds(lane.longest_wait_s) if lane.n_queued else "-",
        short_count(lane.working_set_tokens),
        "-" if lane.budget_tokens is None else short_count(lane.budget_tokens),
        "yes" if lane.is_preemptible else "no",
    ]
