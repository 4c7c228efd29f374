"""`AIOS_TEST_SEEDS=20000` makes the loop long; a seed that fails replays with `python -m aios.testing SEED`."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from aios.testing.campaign import run_crashes
from aios.testing.simulation import Simulator
from aios.testing.world import Faults

N_SEEDS = int(os.environ.get("AIOS_TEST_SEEDS", "30"))
FOUND_BUGS = {
    7: "a cancelled writer left the group undone that it had taken for others, who then waited for ever",
    22: "a program whose row could not be written stayed NEW for ever",
    36: "a disk that failed while the index was closed ended the kernel",
    48: "as 7, by another way",
    21148: "records of a commit that failed came to disk after effects that had been queued behind them, so a replay diverged",
    6042: "a branch that was killed while it was held at the start of its replay wrote into a folder that was erased",
    6047: "a fork of who has ended, whose journal was forgotten, began from the beginning with the files of the end",
    6049: "who was told twice that nobody knows of a call waited for ever in its third life",
    6080: "a snapshot that was written before a crash, and told nobody, was a conflict for its own writer",
    40012: "a commit that could not begin left the audit log waiting for ever for its turn, and refusing what it audits",
    320167: "the simulation held for out of order what a second life did first, of whose first life no disk had heard",
    812169: "a timer that was removed while it started a run told of one run less",
    720973: "the simulation's owner let nobody go on whom a full disk had kept from asking for more",
    712684: "the simulation missed what a call had spent whose outcome a crash took, of who could not be started again",
    503669: "the simulation held a line of cron for a timer of one moment, since the answer to its removal was lost",
    700133: "a program that crashed while it was paused for its budget stayed stopped, and nobody was asked",
    200052: "the simulation held for lost what was undone after a crash, made again, and failed then",
    70_249: "a program that had gone on from an error was asked again for what it had gone on from",
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    simulator = Simulator()
    yield simulator
    simulator.close()


@pytest.mark.parametrize("seed", FOUND_BUGS)
def test_a_bug_that_was_found_does_not_come_back(simulator: Simulator, seed: int) -> None:
    assert not simulator.run(seed).violations, FOUND_BUGS[seed]


@pytest.mark.no_cover
def test_no_seed_breaks_an_invariant(simulator: Simulator) -> None:
    injected: Counter[str] = Counter()
    n_undone = n_served = 0
    for seed in range(10_430, 10_430 + N_SEEDS):
        outcome = simulator.run(seed)
        n_undone += outcome.n_undone
        n_served += outcome.n_served
        injected.update(outcome.injected)
        assert not outcome.violations, f"python -m aios.testing {seed}: {outcome.violations}"
    assert injected.total() > 3 * N_SEEDS
    assert n_undone, "no call was cut off behind its effect"
    assert n_served, "no program served a function"
    assert {"client gone", "engine error", "disk error"} <= injected.keys()


def test_the_same_seed_is_the_same_run_in_another_interpreter(simulator: Simulator) -> None:
    seed = 7
    ours = simulator.run(seed)
    for hash_seed in ("1", "2"):
        said = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "aios.testing", str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"seed {seed}: {ours.trace}, {ours.n_steps} steps" in said
    assert simulator.run(seed).trace == ours.trace
    assert simulator.run(seed + 1).trace != ours.trace


def test_a_run_without_faults_is_one_life_in_which_nothing_fails(simulator: Simulator) -> None:
    outcome = simulator.run(1, Faults())
    assert (outcome.n_lives, outcome.injected, outcome.violations) == (1, {}, ())


@pytest.mark.no_cover
def test_a_crash_at_every_write_and_sync_of_a_run_is_recovered_from(simulator: Simulator) -> None:
    every = 1 if N_SEEDS >= 1_000 else 40
    tally = run_crashes(simulator, 5, lambda _: None, every=every)
    assert not tally.broken, f"at the writes {tally.broken}"
    assert tally.n_runs * every > 100
    assert tally.n_runs == tally.n_faults
