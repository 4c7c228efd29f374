"""`storage`: what files cost: small writes and reads, long files, listings, versions."""

import os
import random
import string
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from time import perf_counter

import anyio
import anyio.to_thread

from aios.abi.gate import Gate
from aios.abi.storage import FileRead, Put
from aios.bench.bench import Bench, Settings, alternate
from aios.bench.children import BenchFailed, scratch_folder
from aios.bench.crashes import N_KILLS, SECONDS_EACH, measure_crashes, specs_of
from aios.bench.indexing import SPECS as INDEX_SPECS
from aios.bench.indexing import measure_index
from aios.bench.path_escapes import try_to_escape
from aios.bench.plain_commands import SPEC as COMMANDS_SPEC
from aios.bench.plain_commands import measure_commands
from aios.bench.rows import Bar, Report, Series, Spec
from aios.config import Config, Home
from aios.kernel.kernel import open_kernel
from aios.sdk.files import Files

NAME = "storage"
N_WRITERS = 16
N_FILES = 100_000
N_VERSIONS = 1_000
PIECE_BYTES = 4 << 20
LONG_BYTES, LONG_BYTES_QUICK = 1 << 30, 64 << 20
SMALL_S, SMALL_S_QUICK = 3.0, 1.0
"""How long small files are written, in each of three rounds."""
N_ESCAPES, RACES_S = 300, 2.0

SPECS = (
    Spec(
        NAME,
        "write-1k",
        "writes/s",
        Bar(500, is_minimum=True),
        f"1 KB from {N_WRITERS} writers, each on disk before the next; beside it a synced file each, one after another",
    ),
    Spec(
        NAME,
        "read-1k",
        "reads/s",
        Bar(10_000, is_minimum=True),
        "1 KB, one after another, in-process",
    ),
    Spec(
        NAME,
        "long-in",
        "MB/s",
        None,
        "a file of 1 GB in pieces of 4 MiB; beside it the same as a synced file",
    ),
    Spec(NAME, "long-out", "MB/s", None, "the same out again"),
    Spec(NAME, "long-memory", "MB", Bar(100), "memory at the peak of both, above what was there"),
    Spec(NAME, "list-100k", "s", Bar(1.0), f"list a folder of {N_FILES} files"),
    Spec(
        NAME,
        "versions-1000",
        "MB",
        Bar(5),
        f"disk of {N_VERSIONS} versions of a text of 100 KB, each with a small edit",
    ),
    *INDEX_SPECS,
    COMMANDS_SPEC,
    Spec(
        NAME,
        "escapes",
        "escapes",
        Bar(0),
        f"out of a mounted folder; at least {N_ESCAPES} attempts, then {RACES_S:g} s of swapped links",
    ),
    *specs_of(NAME, "files"),
)


async def measure(settings: Settings, report: Report, n_kills: int = N_KILLS) -> None:
    """Measure in one kernel after another, each with a home of its own."""
    settings.say("ways out of a mounted folder")
    await _escapes(report)
    with scratch_folder() as folder:
        async with open_kernel(Config(), Home(folder / "searched"), engines={}) as kernel:
            settings.say("the index")
            await measure_index(kernel.init_gate(), report, quick=settings.quick)
        async with open_kernel(Config(), Home(folder / "commanded"), engines={}) as kernel:
            await measure_commands(kernel.init_gate(), report)
        async with open_kernel(Config(), Home(folder / "home"), engines={}) as kernel:
            gate = kernel.init_gate()
            settings.say("small files")
            await _small(gate, folder, report, n_s=SMALL_S_QUICK if settings.quick else SMALL_S)
            settings.say("versions of a text")
            await _versions(gate, report)
            settings.say("a long file")
            await _long(gate, folder, report, LONG_BYTES_QUICK if settings.quick else LONG_BYTES)
            settings.say("a large folder")
            await _list(gate, report)
            faults = (await Files(gate).check()).faults
        if faults:
            raise BenchFailed(f"the files are damaged after all that: {faults[:3]}")
    await measure_crashes("files", report, settings, n_kills)


async def _escapes(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="aios-bench-") as folder:
        escapes = await try_to_escape(Path(folder), races_s=RACES_S)
    n_planned = escapes.n_attempts - escapes.n_raced
    note = f"{n_planned} attempts, and {escapes.n_raced} in the race"
    report.add(
        "escapes",
        len(escapes.faults),
        note="; ".join([note, *escapes.faults[:3]]),
        is_whole=n_planned >= N_ESCAPES and escapes.n_raced > 0,
    )


async def _small(gate: Gate, folder: Path, report: Report, *, n_s: float) -> None:
    files = Files(gate)
    data = os.urandom(1000)
    await files.write("/shared/first", data)

    async def rate_of_writes() -> float:
        n_done = 0
        begun_s = perf_counter()

        async def writer(number: int) -> None:
            nonlocal n_done
            while perf_counter() < begun_s + n_s:
                await files.write(f"/shared/{number}", n_done.to_bytes(8, "big") + data)
                n_done += 1

        async with anyio.create_task_group() as tasks:
            for number in range(N_WRITERS):
                tasks.start_soon(writer, number)
        return n_done / (perf_counter() - begun_s)

    async def rate_of_files() -> float:
        return await anyio.to_thread.run_sync(_synced_files, folder, data, n_s / 3)

    writes, beside = await alternate(3, rate_of_writes, rate_of_files)
    _add(report, "write-1k", writes, beside)

    async def rate_of_reads() -> float:
        n_reads = int(3_000 * n_s)
        begun_s = perf_counter()
        for number in range(n_reads):
            await gate.call(FileRead(path=f"/shared/{number % N_WRITERS}"))
        return n_reads / (perf_counter() - begun_s)

    (reads,) = await alternate(3, rate_of_reads)
    _add(report, "read-1k", reads)


def _synced_files(folder: Path, data: bytes, n_s: float) -> float:
    """How many small files a second can be written and synced one after another."""
    n_done = 0
    begun_s = perf_counter()
    while perf_counter() < begun_s + n_s:
        with (folder / f"synced{n_done}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        n_done += 1
    return n_done / (perf_counter() - begun_s)


async def _versions(gate: Gate, report: Report) -> None:
    draw = random.Random(1)  # noqa: S311 - the same text in every run
    words = [
        "".join(draw.choices(string.ascii_lowercase, k=draw.randrange(2, 10))) for _ in range(2_000)
    ]
    text = " ".join(draw.choices(words, k=20_000))[:100_000]
    files = Files(gate)
    for _ in range(N_VERSIONS):
        at = draw.randrange(len(text) - 10)
        text = text[:at] + draw.choice(words) + text[at + 5 :]
        await files.write("/groups/bench/text", text)
    used = next(each for each in (await files.usage()).usages if each.path == "/groups/bench")
    report.add("versions-1000", used.stored_bytes / 1e6, baseline=N_VERSIONS * 0.1)


async def _long(gate: Gate, folder: Path, report: Report, size_bytes: int) -> None:
    files = Files(gate)
    block = os.urandom(PIECE_BYTES)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(size_bytes // PIECE_BYTES):
            yield number.to_bytes(8, "big") * 1024 + block[8192:]

    plain_s = await anyio.to_thread.run_sync(_synced_long_file, folder / "long", block, size_bytes)
    before_kib = _memory_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # noqa: ASYNC240 - resets the peak at once
    begun_s = perf_counter()
    await files.upload("/shared/long", pieces())
    in_s = perf_counter() - begun_s
    begun_s, n_bytes = perf_counter(), 0
    async for piece in files.download("/shared/long"):
        n_bytes += len(piece)
    out_s = perf_counter() - begun_s
    if n_bytes != size_bytes:
        raise BenchFailed(f"{n_bytes} bytes came out of {size_bytes}")
    whole = size_bytes / 1e6
    report.add("long-in", whole / in_s, baseline=whole / plain_s)
    report.add("long-out", whole / out_s)
    report.add("long-memory", (_memory_kib("VmHWM") - before_kib) * 1024 / 1e6)


def _synced_long_file(path: Path, block: bytes, size_bytes: int) -> float:
    begun_s = perf_counter()
    with path.open("wb") as file:
        for _ in range(size_bytes // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = perf_counter() - begun_s
    path.unlink()
    return seconds


def _memory_kib(field: str) -> int:
    """A figure of this process's memory, by its name in `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


async def _list(gate: Gate, report: Report) -> None:
    files = Files(gate)
    for first in range(0, N_FILES, 1_000):
        await files.edit([Put(f"/agents/lister/{n:06}", b"x") for n in range(first, first + 1_000)])

    async def seconds() -> float:
        begun_s = perf_counter()
        if len(await files.list("/agents/lister")) != N_FILES:
            raise BenchFailed("the listing is not whole")
        return perf_counter() - begun_s

    (series,) = await alternate(3, seconds)
    _add(report, "list-100k", series)


def _add(report: Report, row: str, series: Series, baseline: Series | None = None) -> None:
    report.add(
        row,
        series.median,
        baseline=baseline.median if baseline else None,
        spread=series.spread,
    )


def bench_of(n_kills: int) -> Bench:
    """This bench with so many kills, and losses of power."""
    limit_s = 900.0 + 2 * SECONDS_EACH * n_kills
    measured = partial(measure, n_kills=n_kills)
    return Bench(NAME, "files: small, long, many, old, crashed", limit_s, SPECS, measured)


BENCH = bench_of(N_KILLS)
