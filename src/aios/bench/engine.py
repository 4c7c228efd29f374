"""`engine`: the embedded engine against `llama-batched-bench` of the same build, same file, threads, batch and KV cache.

Both work through `n` sequences of `N_PROMPT` tokens and decode `N_DECODE` steps in each. The tool measures bare calls of
`llama_decode` on random tokens, with logits after each; it neither samples nor makes text. Ours is the whole engine as an
agent meets it: greedy sampling with a banned token, text, and delivery to the event loop. Since its prefill brings the
first token already, it is asked for one token more, and for prefill alone for one token:

    prefill = n * N_PROMPT / T(1)        decode = n * N_DECODE / (T(N_DECODE + 1) - T(1))
    total = n * (N_PROMPT + N_DECODE) / T(N_DECODE + 1)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter

import anyio
import msgspec

from aios.abi.types import Sampling
from aios.bench.bench import Bench, Settings
from aios.bench.children import BenchFailed, environment, running, scratch_folder
from aios.bench.llama_tools import BATCHED_BENCH, find_tool, lacking
from aios.bench.rows import Bar, Report, Series, Spec
from aios.config import EngineConfig
from aios.configload import load
from aios.engine.base import Engine, Job, TextPrompt
from aios.engine.models import find_model
from aios.engine.opening import open_engine

NAME = "engine"
WIDTHS = (1, 4, 8)
N_REPEATS = {1: 7, 4: 3, 8: 3}
"""A single sequence takes a second or two, over which machines are unsteady."""
N_SLOTS = max(WIDTHS)
N_PROMPT, N_DECODE = 256, 64
WINDOW_TOKENS = 512
"""Small, so that neither side spends time on clearing an empty cache."""
END_TOKEN = 2
"""Of the default model; banned, for every sequence must be as long as the next."""
MAX_CACHED_TOKENS = 4
"""Two random prompts may begin with the same few words."""
TOOL_WITHIN_S = 300.0

_BAR = Bar(0.92, is_minimum=True, on_ratio=True)
"""On the whole only: the tool decodes in lock-step, while ours has begun to decode before the last prompt is computed and ends
with fewer and fewer sequences, so where prefill ends and decode begins is not the same place."""

SPECS = tuple(
    Spec(
        NAME,
        f"{part}-{n}",
        "tokens/s",
        _BAR if part == "total" else None,
        f"{n} sequences: {about}",
    )
    for n in WIDTHS
    for part, about in (
        ("total", "prompt and output tokens by the whole time"),
        ("prefill", "prompt tokens until the first token of the last sequence"),
        ("decode", "output tokens after that"),
    )
)

_WORDS = (
    *("time", "people", "water", "house", "city", "music", "book", "money"),
    *("paper", "light", "school", "week", "door", "war", "story"),
)  # fmt: skip
"""One token each, with the default model."""


class ToolRow(msgspec.Struct):
    """What is read of a line of `llama-batched-bench --output-format jsonl`; speeds in tokens a second."""

    pl: int
    speed_pp: float
    speed_tg: float
    speed: float


@dataclass
class Figures:
    """The rates of one side, by row, a figure for each repeat."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    def add(self, n: int, *, total: float, prefill: float, decode: float) -> None:
        """The figures of one repeat at `n` sequences."""
        for part, rate in (("total", total), ("prefill", prefill), ("decode", decode)):
            self.rates.setdefault(f"{part}-{n}", []).append(rate)

    def series(self, row: str) -> Series | None:
        """The figures of a row, if there are any."""
        rates = self.rates.get(row)
        return Series(tuple(rates)) if rates else None


async def measure(settings: Settings, report: Report) -> None:
    """Measure both sides in turn, on one loaded engine and a fresh process of the tool each time."""
    config, home = (
        EngineConfig(kind="llama", n_slots=N_SLOTS, window_tokens=WINDOW_TOKENS),
        load().home,
    )
    model = find_model("", home)
    tool = find_tool(BATCHED_BENCH, os.environ)
    ours, theirs = Figures(), Figures()
    settings.say("loading the model")
    engine = open_engine(NAME, config, home)
    await engine.start()
    try:
        with scratch_folder() as folder:
            await _wall_s(engine, _prompts(1, -1), 8)
            for i in range(1 if settings.quick else max(N_REPEATS.values())):
                for n in (n for n in WIDTHS if i < N_REPEATS[n]):
                    settings.say(f"repeat {i + 1}: {n} sequences")
                    await _measure_engine(engine, n, ours, seed=i)
                    if tool is not None:
                        await _measure_tool(_tool_command(tool, model, config, n), folder, theirs)
    finally:
        with anyio.CancelScope(shield=True):
            await engine.aclose()
    _report_all(report, ours, theirs, note="" if tool else lacking(BATCHED_BENCH))


async def _measure_engine(engine: Engine, n: int, figures: Figures, *, seed: int) -> None:
    first_s = await _wall_s(engine, _prompts(n, 2 * seed), 1)
    whole_s = await _wall_s(engine, _prompts(n, 2 * seed + 1), N_DECODE + 1)
    figures.add(
        n,
        total=n * (N_PROMPT + N_DECODE) / whole_s,
        prefill=n * N_PROMPT / first_s,
        decode=n * N_DECODE / (whole_s - first_s),
    )


async def _wall_s(engine: Engine, prompts: Sequence[str], max_tokens: int) -> float:
    """Seconds until the last of the sequences, all opened at once, has delivered its last token."""
    begun_s = perf_counter()
    async with anyio.create_task_group() as tasks:
        for prompt in prompts:
            tasks.start_soon(_generate, engine, prompt, max_tokens)
    return perf_counter() - begun_s


async def _generate(engine: Engine, prompt: str, max_tokens: int) -> None:
    sampling = Sampling(temperature=0.0, seed=1, logit_bias={END_TOKEN: -100.0})
    sequence = await engine.open(Job(TextPrompt(prompt), sampling, max_tokens))
    try:
        usage = None
        while usage is None:
            usage = (await sequence.read()).usage
    finally:
        with anyio.CancelScope(shield=True):
            await sequence.close()
    if usage.completion_tokens != max_tokens or usage.prompt_tokens != N_PROMPT:
        raise BenchFailed(f"{usage} where {N_PROMPT} and {max_tokens} tokens were asked for")
    if usage.cached_tokens > MAX_CACHED_TOKENS:
        raise BenchFailed(f"{usage.cached_tokens} prompt tokens came from a cache")


def _prompts(n: int, seed: int) -> list[str]:
    """Texts of `N_PROMPT` tokens that begin differently, so that nothing can be reused between them."""
    random = Random(f"{n} {seed}")  # noqa: S311 - not for secrets
    return [" ".join(random.choice(_WORDS) for _ in range(N_PROMPT)) for _ in range(n)]


def _tool_command(tool: Path, model: Path, config: EngineConfig, n: int) -> list[str]:
    threads = str(config.n_threads or len(os.sched_getaffinity(0)))
    batch = str(config.prefill_chunk_tokens)
    return [
        *(str(tool), "--model", str(model), "--ctx-size", str(n * WINDOW_TOKENS)),
        *("--batch-size", batch, "--ubatch-size", batch),
        *("--threads", threads, "--threads-batch", threads),
        *(
            "--flash-attn",
            "off",
            "--no-kv-unified",
            "--cache-type-k",
            "f16",
            "--cache-type-v",
            "f16",
        ),
        *("-npp", str(N_PROMPT), "-ntg", str(N_DECODE), "-npl", str(n)),
        *("--output-format", "jsonl"),
    ]


async def _measure_tool(command: list[str], folder: Path, figures: Figures) -> None:
    async with running(command, env=environment({}), folder=folder) as child:
        with anyio.move_on_after(TOOL_WITHIN_S):
            await child.process.wait()
        rows = _tool_rows(child.output.read_text(errors="replace"))
        if not rows:
            raise BenchFailed(f"{BATCHED_BENCH} brought no figures: {child.last_words()}")
    for row in rows:
        figures.add(row.pl, total=row.speed, prefill=row.speed_pp, decode=row.speed_tg)


def _tool_rows(text: str) -> list[ToolRow]:
    """The lines of figures among what the tool wrote."""
    lines = (line for line in text.splitlines() if line.startswith("{") and '"speed_tg"' in line)
    return [msgspec.json.decode(line, type=ToolRow) for line in lines]


def _report_all(report: Report, ours: Figures, theirs: Figures, *, note: str) -> None:
    for spec in SPECS:
        series, base = ours.series(spec.row), theirs.series(spec.row)
        assert series is not None
        report.add(
            spec.row,
            series.median,
            baseline=base.median if base else None,
            spread=series.spread,
            note=note,
            is_whole=base is not None,
        )


BENCH = Bench(NAME, "the embedded engine beside llama.cpp's own bench", 900.0, SPECS, measure)
