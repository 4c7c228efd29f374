"""`workload`: many agents with several turns each, against `aios serve` and against `llama-server` of the same build.

Both have the same model file, threads, slots and context in all. Each run has a fresh server, so that nothing is left in
a cache from the run before, and the runs take turns. How many prompt tokens somebody who forgets nothing would have computed
is counted afterwards, from what our agents sent.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from aios.abi.types import Message, Role
from aios.bench.agents import Outcome, Said, run_load, warm_up
from aios.bench.bench import Bench, Settings, Shape
from aios.bench.children import (
    blaming,
    daemon,
    environment,
    free_port,
    running,
    scratch_folder,
    wait_healthy,
)
from aios.bench.least import least_computed
from aios.bench.llama_tools import SERVER, find_tool, lacking
from aios.bench.rows import Bar, Report, Series, Spec, quantile
from aios.configload import load
from aios.engine.base import ChatPrompt
from aios.engine.models import find_model

NAME = "workload"
N_SLOTS = 8
WINDOW_TOKENS = 4096
QUICK_SHAPE = Shape(n_agents=4, n_turns=2, max_tokens=8, n_rules=4)
MAKESPAN_BARS: Mapping[Shape, float] = MappingProxyType(
    {
        Shape(n_agents=32, n_turns=3, max_tokens=24, n_rules=12): 1 / 1.6,
        Shape(n_agents=64, n_turns=2, max_tokens=16, n_rules=29): 1 / 1.4,
    }
)
"""The most that the makespan may be of `llama-server`'s; other sizes have the bar 1."""


def specs_of(shape: Shape) -> tuple[Spec, ...]:
    """The rows for a load of that size."""
    bar = Bar(MAKESPAN_BARS.get(shape, 1.0), on_ratio=True)
    least = Bar(1.05, on_ratio=True)
    return (
        Spec(NAME, "makespan", "s", bar, "all agents, all turns"),
        Spec(NAME, "ttft-p50", "s", None, "to the first token of a turn"),
        Spec(NAME, "ttft-p95", "s", None, "the same, of the slowest twentieth"),
        Spec(NAME, "turn-p50", "s", None, "a whole turn"),
        Spec(NAME, "turn-p95", "s", None, "the same, of the slowest twentieth"),
        Spec(NAME, "prompt-tokens", "tokens", None, "prompt tokens that were computed, not reused"),
        Spec(NAME, "prompt-least", "tokens", least, "ours, against each distinct page once"),
    )


SPECS = specs_of(Shape())

Figure = Callable[[Outcome], float]

_FIGURES: Mapping[str, Figure] = {
    "makespan": lambda outcome: outcome.makespan_s,
    "ttft-p50": lambda outcome: quantile((turn.first_s for turn in outcome.turns), 0.5),
    "ttft-p95": lambda outcome: quantile((turn.first_s for turn in outcome.turns), 0.95),
    "turn-p50": lambda outcome: quantile((turn.total_s for turn in outcome.turns), 0.5),
    "turn-p95": lambda outcome: quantile((turn.total_s for turn in outcome.turns), 0.95),
    "prompt-tokens": lambda outcome: outcome.n_computed_tokens,
}


class Endpoint(Struct, frozen=True):
    """A server that is ready."""

    base_url: str
    key: str

    def guest_key(self, i: int) -> str:
        """The key of agent `i`: on AIOS each is a process of its own."""
        return f"{self.key}.agent-{i}" if self.key else "none"


async def measure(settings: Settings, report: Report) -> None:
    """Run the load against each server in turn."""
    shape = settings.shape or (QUICK_SHAPE if settings.quick else Shape())
    model = find_model("", load().home)
    server = find_tool(SERVER, os.environ)
    ours: list[Outcome] = []
    theirs: list[Outcome] = []
    with scratch_folder() as folder:
        for i in range(1 if settings.quick else 2):
            settings.say(f"{shape.n_agents} agents against aios serve")
            async with serve_agents(model, folder) as endpoint:
                ours.append(await run_agents(endpoint, shape, seed=i))
            if server is not None:
                settings.say(f"{shape.n_agents} agents against {SERVER}")
                async with _llama_server(server, model, folder) as endpoint:
                    theirs.append(await run_agents(endpoint, shape, seed=i))
    _report_all(report, ours, theirs)
    report_least(report, ours, least_of(model, ours, shape))


async def run_agents(endpoint: Endpoint, shape: Shape, *, seed: int) -> Outcome:
    """Let a load of that size run against a server that was warmed up."""
    await warm_up(endpoint.base_url, endpoint.guest_key(0))
    return await run_load(endpoint.base_url, endpoint.guest_key, shape, seed=seed)


@asynccontextmanager
async def serve_agents(
    model: Path, folder: Path, extra: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Endpoint]:
    """An `aios serve` with a fresh home, as this bench uses it; `extra` are more knobs as `AIOS_...` variables."""
    knobs = {
        **extra,
        "AIOS_ENGINE_KIND": "llama",
        "AIOS_ENGINE_MODEL": str(model),
        "AIOS_ENGINE_N_SLOTS": str(N_SLOTS),
        "AIOS_ENGINE_WINDOW_TOKENS": str(WINDOW_TOKENS),
        "AIOS_ENGINE_N_THREADS": str(_n_threads()),
    }
    async with daemon(folder, knobs) as served:
        yield Endpoint(served.http_url + "/v1", served.token)


@asynccontextmanager
async def _llama_server(server: Path, model: Path, folder: Path) -> AsyncIterator[Endpoint]:
    port, threads = free_port(), str(_n_threads())
    command = [
        *(str(server), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("--parallel", str(N_SLOTS), "--ctx-size", str(N_SLOTS * WINDOW_TOKENS)),
        *("--threads", threads, "--threads-batch", threads, "--no-webui"),
    ]
    async with running(command, env=environment({}), folder=folder) as child:
        url = f"http://127.0.0.1:{port}"
        await wait_healthy(url, child)
        with blaming(child):
            yield Endpoint(url + "/v1", "")


def _n_threads() -> int:
    return len(os.sched_getaffinity(0))


def _report_all(report: Report, ours: list[Outcome], theirs: list[Outcome]) -> None:
    failures = [failure for outcome in (*ours, *theirs) for failure in outcome.failures]
    note = lacking(SERVER) if not theirs else ""
    if failures:
        note = f"{len(failures)} calls failed, the first with: {failures[0]}"
    for row, figure in _FIGURES.items():
        series, base = _series(ours, figure), _series(theirs, figure)
        if series is None:
            report.miss(row, note)
            continue
        report.add(
            row,
            series.median,
            baseline=base.median if base else None,
            spread=series.spread,
            note=note,
            is_whole=not note,
        )


def least_of(model: Path, ours: Sequence[Outcome], shape: Shape) -> list[int]:
    """The least number of prompt tokens for what each run sent."""
    from aios.engine.llama.loading import open_compiler  # noqa: PLC0415 - the `local` extra

    least = []
    with open_compiler(model) as compiler:
        for outcome in ours:
            conversations = [
                [compiler.prompt_tokens(_prompt(said)).tolist() for said in prompts]
                for prompts in outcome.prompts
            ]
            least.append(least_computed(conversations, answer_tokens=shape.max_tokens))
    return least


def report_least(report: Report, ours: Sequence[Outcome], least: Sequence[int]) -> None:
    """The row of prompt tokens against the least possible; the run with the most over it counts."""
    failures = [failure for outcome in ours for failure in outcome.failures]
    worst, base = max(
        ((outcome.n_computed_tokens, n) for outcome, n in zip(ours, least, strict=True)),
        key=lambda pair: pair[0] / pair[1],
    )
    note = f"{len(failures)} calls failed" if failures else ""
    report.add("prompt-least", worst, baseline=base, note=note, is_whole=not failures)


def _prompt(said: Sequence[Said]) -> ChatPrompt:
    return ChatPrompt(tuple(Message(Role(message["role"]), message["content"]) for message in said))


def _series(outcomes: list[Outcome], figure: Figure) -> Series | None:
    values = tuple(figure(outcome) for outcome in outcomes if outcome.turns)
    return Series(values) if values else None


def bench_of(shape: Shape) -> Bench:
    """The bench with the bars for a load of that size, which the settings name as well."""
    return Bench(NAME, "many agents with many turns", 1_800.0, specs_of(shape), measure)


BENCH = bench_of(Shape())
