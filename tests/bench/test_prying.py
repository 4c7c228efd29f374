"""`AIOS_TEST_ROUNDS=100` makes it long; the seed stands in the message of a failure."""

import os
import random
import tempfile
from pathlib import Path

import pytest

from aios.bench.prying import NOT_TRIED, pry
from aios.kernel.syscall import TABLE

N_ROUNDS = int(os.environ.get("AIOS_TEST_ROUNDS", "1"))


@pytest.mark.anyio
async def test_no_call_ever_tells_one_agent_what_is_private_to_another() -> None:
    seed = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**9))
    with tempfile.TemporaryDirectory(prefix="aios-p-", dir="/tmp") as folder:
        pried = await pry(Path(folder), seed, N_ROUNDS)
    assert pried.faults == [], f"seed {seed}"
    assert pried.tried.keys() | NOT_TRIED == TABLE.keys()
