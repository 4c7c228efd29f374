"""`context`: whether an interrupted generation goes on as if nothing had been, and what an interruption costs.

Exactness is counted over generations that are suspended again and again (`interruptions.py`). The cost of a switch is taken
from two generations that have one slot between them: each goes on for a token, leaves, and lets the other in. What they take
together beyond what they take one after the other, divided by the switches, is one suspension and one resumption as an agent
feels them. The baseline is the prefill of as many tokens, in the same run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter

import anyio

from aios.abi.types import Sampling, TokenLogprob
from aios.bench.bench import Bench, Settings
from aios.bench.interruptions import (
    END_TOKEN,
    Case,
    Rig,
    cases,
    jobs,
    left_alone,
    open_rig,
    read_rows,
)
from aios.bench.rows import Bar, Report, Series, Spec
from aios.config import EngineConfig
from aios.engine.base import Job, Suspended, TextPrompt

NAME = "context"
N_CASES, N_CASES_QUICK = 200, 24
LENGTHS = (450, 1500)
N_DECODES = 24
"""Tokens of each of the two that share a slot: nearly as many switches of each."""
N_REPEATS = 5
N_TRIES = 3
"""So many times as many repeats, while what is measured drowns in noise."""
NOISE = "not measured: the machine's noise was larger than the cost; run it again when other programs are quiet"
N_LOOKED_UP = 4000
N_JOINED = 1500
ROW_BYTES, N_LAYERS = 384, 30
"""Of the default model."""

SPECS = (
    Spec(NAME, "exact", "share", Bar(1.0, is_minimum=True), "interrupted generations that come out the same"),
    Spec(NAME, "recomputed", "tokens", Bar(0.0), "tokens that were computed again after an interruption"),
    Spec(NAME, "exact-concurrent", "share", None, "the same among three others that run"),
    Spec(NAME, "switch-450", "ms", Bar(0.01, on_ratio=True), "suspend + resume, from memory, against prefill"),
    Spec(NAME, "switch-1500", "ms", Bar(0.005, on_ratio=True), "the same at 1500 tokens"),
    Spec(NAME, "disk-450", "ms", Bar(0.03, on_ratio=True), "suspend + resume, from disk, against prefill"),
    Spec(NAME, "lookup", "ms", Bar(1.0), f"find and take the pages of {N_LOOKED_UP} tokens"),
    Spec(NAME, "join", "us", Bar(4.0), f"make a state of pages, a token of {N_JOINED}"),
)  # fmt: skip

_WORDS = ("time", "people", "water", "house", "city", "music", "book", "money", "paper", "light")
"""One token each, with the default model."""


async def measure(settings: Settings, report: Report) -> None:
    """Measure all rows; the quick ones first."""
    report.add("lookup", lookup_ms())
    joined_us, copied_us = join_us()
    report.add("join", joined_us, baseline=copied_us)
    for n_tokens in LENGTHS:
        settings.say(f"switches at {n_tokens} tokens")
        await _measure_switches(n_tokens, 2 if settings.quick else N_REPEATS, report)
    settings.say("interruptions")
    await _measure_exactness(settings, report)


# --- exactness ---------------------------------------------------------------------------------------------------


async def _measure_exactness(settings: Settings, report: Report) -> None:
    chosen = cases(N_CASES_QUICK if settings.quick else N_CASES)
    async with open_rig(EngineConfig(kind="llama", n_slots=2, window_tokens=512)) as rig:
        expected = await left_alone(rig, chosen)
        n_exact = 0
        for number, case in enumerate(chosen):
            n_exact += await rig.run_interrupted(case) == expected[case.kind]
            if number % 20 == 0:
                settings.say(f"{number} of {len(chosen)} generations, {n_exact} exact")
        note = f"{len(chosen)} generations, {rig.n_interruptions} interruptions"
        report.add("exact", n_exact / len(chosen), note=note)
        report.add("recomputed", rig.n_recomputed_tokens, note=note)
    async with open_rig(EngineConfig(kind="llama", n_slots=4, window_tokens=512)) as rig:
        report.add("exact-concurrent", await _concurrent_share(rig, chosen[: len(chosen) // 4]))


async def _concurrent_share(rig: Rig, chosen: Sequence[Case]) -> float:
    """The share of interrupted generations that come out the same while three others run."""
    expected = await left_alone(rig, chosen)
    n_exact = 0
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(_run_forever, rig, jobs()[number])
        for case in chosen:
            sequence = await rig.engine.open(case.job)
            rows: list[TokenLogprob] = []
            while True:
                delta = await sequence.read()
                rows += delta.logprobs
                if delta.finish is not None:
                    break
                sequence = await rig.engine.open(case.job, await sequence.suspend())
            await sequence.close()
            theirs = [row.token_bytes for row in expected[case.kind]]
            n_exact += [row.token_bytes for row in rows] == theirs
        tasks.cancel_scope.cancel()
    return n_exact / len(chosen)


async def _run_forever(rig: Rig, job: Job) -> None:
    while True:
        await read_rows(await rig.engine.open(job))


# --- the cost of a switch ----------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Two generations that have one slot between them."""

    rig: Rig
    n_tokens: int
    seed: int

    def job(self, number: int) -> Job:
        """A prompt of so many tokens that begins like no other."""
        random = Random(f"{self.n_tokens} {self.seed} {number}")  # noqa: S311 - not for secrets
        text = " ".join(random.choice(_WORDS) for _ in range(self.n_tokens))
        sampling = Sampling(temperature=0, seed=1, logit_bias={END_TOKEN: -100.0})
        return Job(TextPrompt(text), sampling, N_DECODES)

    async def begin(self, number: int) -> tuple[float, Suspended]:
        """Compute a prompt and suspend after the first token. Returns: the seconds until that token."""
        begun_s = perf_counter()
        sequence = await self.rig.engine.open(self.job(number))
        await sequence.read()
        prefill_s = perf_counter() - begun_s
        return prefill_s, await sequence.suspend()

    async def in_a_row(self, begun: Sequence[Suspended]) -> float:
        """Seconds that both take to their ends, one after the other."""
        started_s = perf_counter()
        for number, suspended in enumerate(begun):
            sequence = await self.rig.engine.open(self.job(number), suspended)
            while (await sequence.read()).finish is None:
                pass
            await sequence.close()
        return perf_counter() - started_s

    async def in_turns(self, begun: Sequence[Suspended], *, from_disk: bool) -> tuple[float, int]:
        """Seconds that both take to their ends, a token each in turn, and how many switches that were.

        With `from_disk`, what a generation has in memory is lost before it goes on; that is not counted.
        """
        waiting = list(enumerate(begun))
        lasted_s, n_switches = 0.0, 0
        while waiting:
            number, suspended = waiting.pop(0)
            if from_disk:
                data = await self.rig.engine.dump(suspended)
                for _, other in waiting:
                    await self.rig.engine.dump(other)
                self.rig.pages.reopen()
                suspended = self.rig.engine.load(data)
            started_s = perf_counter()
            sequence = await self.rig.engine.open(self.job(number), suspended)
            if (await sequence.read()).finish is None:
                waiting.append((number, await sequence.suspend()))
            else:
                await sequence.close()
            lasted_s += perf_counter() - started_s
            n_switches += 1
        return lasted_s, n_switches


async def _measure_switches(n_tokens: int, n_repeats: int, report: Report) -> None:
    window_tokens = n_tokens + 2 * N_DECODES
    rows = (f"switch-{n_tokens}", f"disk-{n_tokens}")
    costs = Costs({spec.row: [] for spec in SPECS if spec.row in rows})
    async with open_rig(EngineConfig(kind="llama", n_slots=1, window_tokens=window_tokens)) as rig:
        await Pair(rig, 64, -1).begin(0)
        for number in range(N_TRIES * n_repeats):
            await costs.measure(Pair(rig, n_tokens, number))
            if (number + 1) % n_repeats == 0 and costs.are_told:
                break
    costs.report(report)


@dataclass
class Costs:
    """What a switch of each kind cost, by its row, and what the prefill did."""

    switch_s: dict[str, list[float]]
    prefill_s: list[float] = field(default_factory=list)

    async def measure(self, pair: Pair) -> None:
        """Take each figure once more."""
        begun = [await pair.begin(number) for number in range(2)]
        self.prefill_s += [prefill_s for prefill_s, _ in begun]
        row_s = await pair.in_a_row([suspended for _, suspended in begun])
        for row, values in self.switch_s.items():
            both = [(await pair.begin(number))[1] for number in range(2)]  # from pages, now
            turns_s, n_switches = await pair.in_turns(both, from_disk=row.startswith("disk"))
            values.append((turns_s - row_s) / (n_switches - len(both)))

    @property
    def are_told(self) -> bool:
        """Whether every switch cost something: a difference drowned in noise may be below nothing."""
        return all(Series(tuple(values)).median > 0 for values in self.switch_s.values())

    def report(self, report: Report) -> None:
        """The rows; a cost that is not above nothing was not measured, and clears no bar."""
        baseline = 1000 * Series(tuple(self.prefill_s)).median
        for row, values in self.switch_s.items():
            cost = Series(tuple(values))
            is_told = cost.median > 0
            report.add(
                row,
                1000 * cost.median,
                baseline=baseline,
                spread=cost.spread if is_told else None,
                note="" if is_told else NOISE,
                is_whole=is_told,
            )


# --- without a model ---------------------------------------------------------------------------------------------


def lookup_ms() -> float:
    """The middle time to name, find and take the pages of a long prompt, all in memory."""
    import numpy as np  # noqa: PLC0415 - comes with the `local` extra

    from aios.kernel.context.pages import PageStore  # noqa: PLC0415

    tokens = np.arange(N_LOOKED_UP, dtype=np.int32)
    store = PageStore(fingerprint="m", page_tokens=32, page_bytes=64, budget_bytes=1 << 20)
    keys = store.keys(tokens)
    for number, key in enumerate(keys):
        store.add(key, keys[number - 1] if number else None, lambda page: page.fill(0))
    lasted = []
    for _ in range(50):
        begun_s = perf_counter()
        n_found = len(store.acquire(store.keys(tokens)))
        lasted.append(perf_counter() - begun_s)
        assert n_found == N_LOOKED_UP // 32
        store.release(keys)
    return 1000 * Series(tuple(lasted)).median


def join_us() -> tuple[float, float]:
    """The middle times to join pages of the default model's size and to copy as many bytes, by tokens."""
    import numpy as np  # noqa: PLC0415

    from aios.engine.llama.kvstate import PAGE_TOKENS, Blocks, Layout, join  # noqa: PLC0415

    keys = Blocks(bytes(12), n_lines=1, unit_bytes=ROW_BYTES, n_blocks=N_LAYERS)
    values = Blocks(bytes(12), n_lines=ROW_BYTES // 2, unit_bytes=2, n_blocks=N_LAYERS)
    layout = Layout(0, 8, 1, (keys, values))
    n_pages = -(-N_JOINED // PAGE_TOKENS)
    pages = [np.full(layout.page_bytes, number, np.uint8) for number in range(n_pages)]
    out = np.full(layout.state_bytes(N_JOINED), 1, np.uint8)
    rows = [out[n * page.nbytes : (n + 1) * page.nbytes] for n, page in enumerate(pages)]
    joined, copied = [], []
    for _ in range(15):
        begun_s = perf_counter()
        join(layout, pages, n_tokens=N_JOINED, out=out)
        between_s = perf_counter()
        for target, page in zip(rows, pages, strict=True):
            target[:] = page[: target.nbytes]
        joined.append(between_s - begun_s)
        copied.append(perf_counter() - between_s)
    a_token = 1e6 / N_JOINED
    return a_token * Series(tuple(joined)).median, a_token * Series(tuple(copied)).median


BENCH = Bench(NAME, "interrupted generations: exact, and what it costs", 1800.0, SPECS, measure)
