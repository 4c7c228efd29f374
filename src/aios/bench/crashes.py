"""What crashes leave: rows of the benches `storage` and `memory`.

Each part runs in a program of its own, for losing power changes what `os` and SQLite are.

    python -m aios.bench.crashes files kills 1000 [SEED]      also: notes, losses; prints what was found as JSON
"""

import random
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import MappingProxyType

import anyio
import msgspec

from aios.bench import file_crashes, note_crashes
from aios.bench.bench import Settings
from aios.bench.children import BenchFailed
from aios.bench.rows import Bar, Report, Spec

N_KILLS, N_KILLS_QUICK = 10, 2
N_EACH = 20
"""Kills or losses of one program, so that there is something to be told in between."""
SECONDS_EACH = 10.0
"""A kill, or a loss of power, with a look at what it has left, takes so long at most."""

WAYS: Mapping[tuple[str, str], Callable[[Path, int, int], list[str]]] = MappingProxyType(
    {
        ("files", "kills"): file_crashes.kills,
        ("files", "losses"): file_crashes.losses,
        ("notes", "kills"): note_crashes.kills,
        ("notes", "losses"): note_crashes.losses,
    }
)


class Found(msgspec.Struct, frozen=True):
    """What was wrong after crashes."""

    n: int
    seed: int
    faults: tuple[str, ...]


def specs_of(bench: str, what: str) -> tuple[Spec, Spec]:
    """The rows of one bench."""
    return (
        Spec(
            bench,
            "kill-9",
            "faults",
            Bar(0),
            f"what is lost, half done or contradicts itself after kills among {what}; {N_KILLS} kills or `--kills`",
        ),
        Spec(bench, "power-loss", "faults", Bar(0), "the same when what was not synced is dropped, torn or reordered"),
    )  # fmt: skip


async def measure_crashes(what: str, report: Report, settings: Settings, n_kills: int) -> None:
    """Kill a kernel, and let the power of another fail, so many times each."""
    n = min(n_kills, N_KILLS_QUICK) if settings.quick else n_kills
    for row, way in (("kill-9", "kills"), ("power-loss", "losses")):
        found: list[Found] = []
        for begun in range(0, n, N_EACH):
            settings.say(f"{way} among {what}: {begun} of {n}")
            seed = random.SystemRandom().randrange(10**9)
            found.append(await _told(what, way, min(N_EACH, n - begun), seed))
        faults = [f"seed {each.seed}: {fault}" for each in found for fault in each.faults]
        seeds = " ".join(str(each.seed) for each in found[:5])
        note = f"{n} {way}, seeds {seeds}" if not faults else "; ".join(faults[:3])
        report.add(row, len(faults), note=note)


async def _told(what: str, way: str, n: int, seed: int) -> Found:
    """What a program of its own finds.

    Raises:
        BenchFailed: It broke off.
    """
    command = [sys.executable, "-m", "aios.bench.crashes", what, way, str(n), str(seed)]
    ran = await anyio.run_process(command, stdout=PIPE, stderr=DEVNULL, check=False)
    try:
        return msgspec.json.decode(ran.stdout, type=Found)
    except msgspec.DecodeError as error:
        raise BenchFailed(f"{' '.join(command)} ended with {ran.returncode}") from error


def main(words: list[str]) -> int:
    """Crash as often as asked, print what was found. Returns: 1 if anything was."""
    parser = ArgumentParser(prog="python -m aios.bench.crashes", description="Crash kernels.")
    parser.add_argument("what", choices=sorted({what for what, _ in WAYS}))
    parser.add_argument("way", choices=sorted({way for _, way in WAYS}))
    parser.add_argument("n", type=int, help="how often")
    parser.add_argument(
        "seed", type=int, nargs="?", help="the same seed crashes at the same places"
    )
    asked = parser.parse_args(words)
    seed = random.SystemRandom().randrange(10**9) if asked.seed is None else asked.seed
    with tempfile.TemporaryDirectory(prefix="aios-crashes-") as folder:
        faults = WAYS[asked.what, asked.way](Path(folder), asked.n, seed)
    found = Found(asked.n, seed, tuple(faults))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
