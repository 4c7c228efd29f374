"""Many runs, and what they come to: seeds one after another, or the power failing at every point of one of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Protocol

from msgspec import Struct

from aios.testing.simulation import Outcome
from aios.testing.world import Faults

Told = Callable[[Outcome], None]
"""Told of each run when it is over."""


class Simulates(Protocol):
    """What runs seeds."""

    def run(self, seed: int, faults: Faults | None = None) -> Outcome:
        """Run one, with the faults that it draws if none are given."""
        ...


class Tally(Struct, frozen=True):
    """What came of many runs. `broken` names each seed, or point of a seed, that broke an invariant."""

    n_runs: int
    spent_s: float
    injected: Mapping[str, int]
    broken: tuple[int, ...]

    @property
    def n_faults(self) -> int:
        """Faults that were injected, of all kinds."""
        return sum(self.injected.values())


def run_seeds(simulator: Simulates, seeds: Iterable[int], told: Told) -> Tally:
    """Run each seed with the faults that it draws."""
    begun_s, n_runs, broken, injected = perf_counter(), 0, list[int](), Counter[str]()
    for seed in seeds:
        outcome = simulator.run(seed)
        told(outcome)
        n_runs += 1
        injected.update(outcome.injected)
        broken += [seed] * bool(outcome.violations)
    return Tally(n_runs, perf_counter() - begun_s, dict(injected), tuple(broken))


def run_crashes(simulator: Simulates, seed: int, told: Told, *, every: int = 1) -> Tally:
    """Let the power fail at a write, truncation or sync of a run without other faults; each point is a run of its own.

    A point is broken if an invariant is, or if not exactly one more kernel brought the run to its end.

    Args:
        simulator: What runs it.
        seed: Whose run it is.
        told: Told of each run.
        every: 1 takes every point, 12 each twelfth.
    """
    begun_s, broken, injected = perf_counter(), list[int](), Counter[str]()
    at = 1
    while True:
        outcome = simulator.run(seed, Faults(crash_at_writes=(at,)))
        if not outcome.injected:  # it came to its end before
            break
        told(outcome)
        injected.update(outcome.injected)
        broken += [at] * (bool(outcome.violations) or outcome.n_lives != 2)
        at += every
    return Tally(sum(injected.values()), perf_counter() - begun_s, dict(injected), tuple(broken))
