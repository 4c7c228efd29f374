"""The garbage collector of an operating-system process that serves a kernel, and that of one which only uses the library."""

import gc
from collections.abc import Iterator

import pytest
from tests.server.serving import serving

from aios.server.collector import YOUNG_OBJECTS, settle_collector


@pytest.fixture
def collector() -> Iterator[None]:
    """Puts the collector back as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_what_lives_already_is_not_looked_at_again_and_cycles_still_go() -> None:
    settle_collector()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    n_before = len(gc.get_objects())
    for _ in range(int(1.7 * YOUNG_OBJECTS)):
        cycle: list[object] = []
        cycle.append(cycle)
    assert len(gc.get_objects()) - n_before < 1.1 * YOUNG_OBJECTS


@pytest.mark.anyio
async def test_a_kernel_in_somebody_elses_program_leaves_its_collector_alone() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    async with serving():
        assert (gc.get_threshold(), gc.get_freeze_count()) == before
