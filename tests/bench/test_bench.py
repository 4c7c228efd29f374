"""How figures are taken: in turn, one after another."""

import pytest

from aios.bench.bench import alternate, seconds_each
from aios.bench.rows import Series

pytestmark = pytest.mark.anyio


async def test_measures_take_turns() -> None:
    order: list[str] = []

    async def a() -> float:
        order.append("a")
        return float(len(order))

    async def b() -> float:
        order.append("b")
        return -float(len(order))

    assert await alternate(3, a, b) == [Series((1.0, 3.0, 5.0)), Series((-2.0, -4.0, -6.0))]
    assert "".join(order) == "ababab"


async def test_each_repeat_is_timed_on_its_own() -> None:
    n_done = 0

    async def act() -> None:
        nonlocal n_done
        n_done += 1

    found = await seconds_each(4, act)
    assert n_done == len(found) == 4
    assert all(seconds >= 0 for seconds in found)
