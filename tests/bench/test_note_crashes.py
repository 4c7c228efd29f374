"""`AIOS_TEST_CRASHES=1000` makes the loops long; the seed stands in the message of a failure."""

import os
import random
from pathlib import Path

import pytest

from aios.bench.note_crashes import kills, losses

N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "4"))
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))


def test_after_kill_9_notes_are_as_acknowledged_and_nothing_is_half_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kills(tmp_path, N_CRASHES, SEED) == [], f"seed {SEED}"
    with capsys.disabled():
        print(f" [{N_CRASHES} kills among notes, seed {SEED}: nothing lost]", end="")  # noqa: T201 - a bar of the project


def test_after_a_loss_of_power_notes_are_as_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert losses(tmp_path, 2 * N_CRASHES, SEED) == [], f"seed {SEED}"
    with capsys.disabled():
        print(f" [{2 * N_CRASHES} losses of power among notes, seed {SEED}: nothing lost]", end="")  # noqa: T201 - a bar of the project
