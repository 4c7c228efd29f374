"""`scale`: whether a crowd of agents gets as much done together as a few: no cliff where they outgrow slots and memory.

The agents of the `workload` bench, against `aios serve` alone; the few run before and after the many, each with a fresh daemon.
"""

from msgspec.structs import replace

from aios.bench.agents import Outcome
from aios.bench.bench import Bench, Settings, Shape
from aios.bench.children import scratch_folder
from aios.bench.rows import Bar, Report, Series, Spec
from aios.bench.workload import run_agents, serve_agents
from aios.configload import load
from aios.engine.models import find_model

NAME = "scale"
N_FEW, N_MANY = 16, 128
N_FEW_QUICK, N_MANY_QUICK = 4, 12
SHAPE, SHAPE_QUICK = Shape(n_turns=2, max_tokens=16), Shape(n_turns=1, max_tokens=8, n_rules=2)

SPECS = (
    Spec(
        NAME,
        "throughput",
        "tok/s",
        Bar(0.95, is_minimum=True, on_ratio=True),
        f"all that is generated at {N_MANY} agents; the baseline is {N_FEW} agents",
    ),
)


async def measure(settings: Settings, report: Report) -> None:
    """Run the few, the many, and the few again."""
    n_few, n_many = (N_FEW_QUICK, N_MANY_QUICK) if settings.quick else (N_FEW, N_MANY)
    model = find_model("", load().home)
    runs: list[tuple[int, Outcome]] = []
    with scratch_folder() as folder:
        for seed, n_agents in enumerate((n_few, n_many, n_few)):
            settings.say(f"{n_agents} agents")
            async with serve_agents(model, folder) as endpoint:
                shape = replace(SHAPE_QUICK if settings.quick else SHAPE, n_agents=n_agents)
                runs.append((n_agents, await run_agents(endpoint, shape, seed=seed)))
    report_throughput(report, few=[run for n, run in runs if n == n_few], many=runs[1][1])


def report_throughput(report: Report, *, few: list[Outcome], many: Outcome) -> None:
    """The row; nothing is whole if a call failed."""
    failures = [failure for outcome in (*few, many) for failure in outcome.failures]
    base = Series(tuple(_rate(outcome) for outcome in few))
    note = f"{len(few[0].prompts)} and {len(many.prompts)} agents"
    if failures:
        note = f"{len(failures)} calls failed, the first with: {failures[0]}"
    report.add(
        "throughput",
        _rate(many),
        baseline=base.median,
        spread=base.spread,
        note=note,
        is_whole=not failures,
    )


def _rate(outcome: Outcome) -> float:
    return sum(turn.n_tokens for turn in outcome.turns) / outcome.makespan_s


BENCH = Bench(NAME, "a crowd of agents against a few", 1_800.0, SPECS, measure, is_long=True)
