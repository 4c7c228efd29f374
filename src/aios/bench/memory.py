"""`memory`: how fast agents remember and recall, and what their memory blocks hold."""

import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from time import perf_counter

import anyio
import anyio.to_thread

from aios.abi.gate import Gate
from aios.abi.interactions import MemoryLog, MemoryStat
from aios.abi.memory import Recall, Remember
from aios.bench.bench import Bench, Settings, seconds_each
from aios.bench.children import scratch_folder
from aios.bench.crashes import N_KILLS, SECONDS_EACH, measure_crashes, specs_of
from aios.bench.prying import pry
from aios.bench.rows import Bar, Report, Spec, quantile
from aios.config import Config, Home
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory.blocks import Block

NAME = "memory"
N_NOTES = 100_000
N_IN_FLIGHT = 64
N_WORDS, NOTE_WORDS, QUERY_WORDS = 20_000, 20, 5
N_PRYING_ROUNDS = 3
N_PARAGRAPHS_QUICK = 60
BLOCK_BYTES, N_RECORDS, RECORD_BYTES, N_READS = 1 << 20, 10_000, 500, 50_000

SPECS = (
    Spec(
        NAME,
        "remember",
        "notes/s",
        Bar(2_000, is_minimum=True),
        f"{N_IN_FLIGHT} in flight, on disk",
    ),
    Spec(NAME, "recall-p50", "ms", Bar(10), f"over {N_NOTES} notes"),
    Spec(NAME, "recall-p99", "ms", Bar(30), "the same calls"),
    Spec(
        NAME,
        "found",
        "share",
        Bar(1, is_minimum=True, on_ratio=True),
        "recall@10 by words and meaning, questions of XQuAD; the baseline is the better of the two alone",
    ),
    Spec(NAME, "found-words", "share", None, "the same by words alone (FTS5)"),
    Spec(NAME, "found-meaning", "share", None, "the same by vectors alone"),
    Spec(NAME, "log", "records/s", None, f"interactions, {N_IN_FLIGHT} in flight, on disk"),
    Spec(NAME, "block", "KiB", Bar(BLOCK_BYTES / 1024), f"the block after {N_NOTES} interactions"),
    Spec(NAME, "faults", "faults", Bar(0.95, on_ratio=True), "LRU-K against plain LRU, Zipf-like"),
    Spec(
        NAME, "private", "leaks", Bar(0), "of one agent's files and notes to another, on any call"
    ),
    *specs_of(NAME, "notes"),
)


async def measure(settings: Settings, report: Report, n_kills: int = N_KILLS) -> None:
    """In one kernel without an engine, and what must never happen in others."""
    n_notes = N_NOTES // 50 if settings.quick else N_NOTES
    note = f"{n_notes} notes" if settings.quick else ""
    report.add("faults", zipf_faults(2), baseline=zipf_faults(1))
    chance = random.Random(1)  # noqa: S311 - texts that are the same in each run
    await anyio.to_thread.run_sync(_find, report, settings.quick)
    async with _kernel() as kernel:
        gate = kernel.init_gate()
        settings.say(f"remembering {n_notes} notes")
        words = _texts(chance, NOTE_WORDS)
        await gate.call(Remember(text=next(words)))  # the embedder is loaded here
        notes = iter(
            [next(words) for _ in range(n_notes + N_IN_FLIGHT)]
        )  # making them up is not measured
        rate = await _rate(n_notes, lambda: gate.call(Remember(text=next(notes))))
        report.add("remember", rate, note=note)
        settings.say("recalling")
        queries = _texts(chance, QUERY_WORDS)
        n_recalls = 50 if settings.quick else 500
        seconds = await seconds_each(n_recalls, lambda: gate.call(Recall(query=next(queries))))
        for row, share in (("recall-p50", 0.5), ("recall-p99", 0.99)):
            report.add(row, 1000 * quantile(seconds, share), note=note)
        settings.say(f"logging {n_notes} interactions")
        await _log(gate, words, n_notes, report)
    settings.say("agents at each other's secrets")
    await _private(report, 1 if settings.quick else N_PRYING_ROUNDS)
    await measure_crashes("notes", report, settings, n_kills)


async def _private(report: Report, n_rounds: int) -> None:
    seed = random.SystemRandom().randrange(10**9)
    with tempfile.TemporaryDirectory(
        prefix="aios-b-", dir="/tmp"
    ) as folder:  # for sockets, a short path
        pried = await pry(Path(folder), seed, n_rounds)
    note = f"{pried.tried.total()} calls of {len(pried.tried)} kinds, seed {seed}"
    report.add("private", len(pried.faults), note="; ".join([note, *pried.faults[:3]]))


def _find(report: Report, is_quick: bool) -> None:
    """The half of the questions that nothing was tuned on."""
    if find_spec("wordllama") is None:
        return  # the rows say that they were not taken
    from aios.bench.retrieval import load, measure_retrieval  # noqa: PLC0415 - takes packages of an extra

    paragraphs = load()[:N_PARAGRAPHS_QUICK] if is_quick else load()
    found = measure_retrieval(paragraphs, is_test=True)
    note = f"{found.n_questions} questions"
    best = max(found.by_words, found.by_meaning)
    report.add("found", found.by_both, baseline=best, note=note)
    report.add("found-words", found.by_words, note=note)
    report.add("found-meaning", found.by_meaning, note=note)


async def _log(gate: Gate, words: Iterator[str], n_records: int, report: Report) -> None:
    report.add("log", await _rate(n_records, lambda: gate.call(MemoryLog(text=next(words)))))
    block = (await gate.call(MemoryStat())).value
    report.add("block", block.size_bytes / 1024, is_whole=block.n_records >= n_records)


def zipf_faults(k: int) -> int:
    """Faults of a block that reads records with frequencies of 1 / rank; `k` 1 is plain LRU."""
    chance, block = random.Random(1), Block(BLOCK_BYTES, k=k)  # noqa: S311 - the same reads for both
    weights = [1 / rank for rank in range(1, N_RECORDS + 1)]
    for record in chance.choices(range(N_RECORDS), weights, k=N_READS):
        if block.find(record) is None:
            block.put(record, bytes(RECORD_BYTES))
    return block.n_faults


async def _rate(n_calls: int, act: Callable[[], Awaitable[object]]) -> float:
    """Calls a second, so many at once."""
    n_each = n_calls // N_IN_FLIGHT + 1

    async def caller() -> None:
        for _ in range(n_each):
            await act()

    begun_s = perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(N_IN_FLIGHT):
            tasks.start_soon(caller)
    return N_IN_FLIGHT * n_each / (perf_counter() - begun_s)


def _texts(chance: random.Random, n_words: int) -> Iterator[str]:
    """Texts of words whose frequencies are 1 / rank, as those of a language are."""
    vocabulary = [f"word{number}" for number in range(N_WORDS)]
    heaps = list(accumulate(1 / rank for rank in range(1, N_WORDS + 1)))
    while True:
        yield " ".join(chance.choices(vocabulary, cum_weights=heaps, k=n_words))


@asynccontextmanager
async def _kernel() -> AsyncIterator[Kernel]:
    with scratch_folder() as folder:
        async with open_kernel(Config(), Home(folder / "home"), engines={}) as kernel:
            yield kernel


def bench_of(n_kills: int) -> Bench:
    """This bench with so many kills, and losses of power."""
    limit_s = 400.0 + 2 * SECONDS_EACH * n_kills
    measured = partial(measure, n_kills=n_kills)
    return Bench(NAME, "what agents remember", limit_s, SPECS, measured)


BENCH = bench_of(N_KILLS)
