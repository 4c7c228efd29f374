"""What many runs come to, on a simulator that only says what it was told to."""

from dataclasses import dataclass, field

from aios.testing.campaign import run_crashes, run_seeds
from aios.testing.simulation import Outcome
from aios.testing.world import Faults


@dataclass
class Scripted:
    """Breaks at some seeds or points; its runs have `n_writes` writes."""

    broken: frozenset[int]
    n_writes: int = 0
    told: list[Outcome] = field(default_factory=list)

    def run(self, seed: int, faults: Faults | None = None) -> Outcome:
        at = seed if faults is None else faults.crash_at_writes[0]
        injected = {"crash": 1} if faults is None or at <= self.n_writes else {}
        violations = ("lost",) if at in self.broken else ()
        return Outcome(seed, "", 0, 0, 1 + len(injected), injected, violations)


def test_seeds_are_added_up_and_the_broken_ones_named() -> None:
    scripted = Scripted(frozenset({3}))
    tally = run_seeds(scripted, range(1, 6), scripted.told.append)
    assert (tally.n_runs, tally.n_faults, tally.broken) == (5, 5, (3,))
    assert [outcome.seed for outcome in scripted.told] == [1, 2, 3, 4, 5]


def test_the_power_fails_at_every_point_until_a_run_is_over_before_it() -> None:
    scripted = Scripted(frozenset({7}), n_writes=9)
    tally = run_crashes(scripted, 5, scripted.told.append)
    assert (tally.n_runs, tally.broken) == (9, (7,))
    assert len(scripted.told) == 9
    some = run_crashes(scripted, 5, lambda _: None, every=4)
    assert (some.n_runs, some.broken) == (3, ())
