"""`sim`: the whole kernel in a simulated world: how many seeds a second, and what they break."""

import sys
from functools import partial
from subprocess import DEVNULL, PIPE

import anyio
import msgspec

from aios.bench.bench import Bench, Settings
from aios.bench.children import BenchFailed
from aios.bench.rows import Bar, Report, Spec
from aios.testing.campaign import Tally

NAME = "sim"
FIRST_SEED, CRASHED_SEED = 1_000_000, 5
N_SEEDS = 200
N_EACH_SEEDS = 100
"""Seeds of one program, so that there is something to be told in between."""
EVERY_POINT, SOME_POINTS = 1, 60

SPECS = (
    Spec(NAME, "seeds", "seeds/s", None, f"the whole kernel with faults, {N_SEEDS} seeds or `--seeds`"),
    Spec(NAME, "broken", "seeds", Bar(0), "of them, those that broke an invariant"),
    Spec(NAME, "faults", "faults", None, "injected into them: crashes, disk errors, lost clients, ..."),
    Spec(NAME, "crash-points", "%", Bar(100, is_minimum=True), "of all writes and syncs of a run, those from which it recovers when the power fails there"),
)  # fmt: skip


async def measure(settings: Settings, report: Report, n_seeds: int = N_SEEDS) -> None:
    """Run seeds, then one of them with the power failing at each of its writes and syncs."""
    if settings.quick:
        n_seeds = min(n_seeds, N_EACH_SEEDS // 10)
    tallies, broken = list[Tally](), list[int]()
    for first in range(FIRST_SEED, FIRST_SEED + n_seeds, N_EACH_SEEDS):
        last = min(first + N_EACH_SEEDS, FIRST_SEED + n_seeds) - 1
        tally = await _told(f"{first}-{last}")
        tallies.append(tally)
        broken += tally.broken
        settings.say(f"{last + 1 - FIRST_SEED} of {n_seeds} seeds, broken: {broken or 'none'}")
    spent_s = sum(tally.spent_s for tally in tallies)
    named = " ".join(map(str, broken))
    report.add("seeds", n_seeds / spent_s, note=f"{n_seeds} seeds from {FIRST_SEED}")
    report.add("broken", len(broken), note=f"python -m aios.testing {named}" if broken else "")
    report.add("faults", sum(tally.n_faults for tally in tallies))
    settings.say("the power fails at every write and sync of a run")
    every = SOME_POINTS if settings.quick else EVERY_POINT
    points = await _told("--crashes", "--every", str(every), str(CRASHED_SEED))
    good = points.n_runs - len(points.broken)
    note = f"{good} of {points.n_runs} points, each {every}. of seed {CRASHED_SEED}"
    report.add("crash-points", 100 * good / points.n_runs, note=note)


async def _told(*words: str) -> Tally:
    """What the simulation says; in a program of its own, for it changes what threads and chance are.

    Raises:
        BenchFailed: It broke off.
    """
    command = [sys.executable, "-m", "aios.testing", "--json", *words]
    ran = await anyio.run_process(command, stdout=PIPE, stderr=DEVNULL, check=False)
    try:
        return msgspec.json.decode(ran.stdout, type=Tally)
    except msgspec.DecodeError as error:
        raise BenchFailed(f"{' '.join(command)} ended with {ran.returncode}") from error


def bench_of(n_seeds: int) -> Bench:
    """This bench with so many seeds; each may take a second."""
    measured = partial(measure, n_seeds=n_seeds)
    return Bench(NAME, "the kernel in a simulated world", 900.0 + n_seeds, SPECS, measured)


BENCH = bench_of(N_SEEDS)
