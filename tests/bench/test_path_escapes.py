"""Hostile paths and folders. `AIOS_TEST_RACES_S` makes the races with swapped links longer."""

import os
from pathlib import Path

import pytest

from aios.bench.path_escapes import try_to_escape

RACES_S = float(os.environ.get("AIOS_TEST_RACES_S", "1"))


@pytest.mark.anyio
async def test_no_attempt_leads_out_of_a_mounted_folder(tmp_path: Path) -> None:
    escapes = await try_to_escape(tmp_path, races_s=RACES_S)
    assert escapes.faults == []
    assert escapes.n_attempts - escapes.n_raced >= 300
    assert escapes.n_raced > 0
