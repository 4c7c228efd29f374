"""What an agent costs the kernel does not grow with their number."""

import gc
import subprocess
import sys

import msgspec
import pytest

from aios.bench.paper_agents import PLAIN, Cost, Pauses, main, measure_cost


@pytest.mark.anyio
@pytest.mark.no_cover
async def test_the_time_for_an_agent_does_not_follow_the_number_of_agents() -> None:
    async def least_us(n_at_once: int) -> float:
        return min([(await measure_cost(n_at_once, 300, PLAIN)).agent_us for _ in range(2)])

    await measure_cost(10, 10, PLAIN)
    few_us, many_us = await least_us(10), await least_us(300)
    assert many_us < 4 * few_us, "something looks at all agents for each of them"


def test_the_command_prints_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    main(["10", "20", PLAIN])
    cost = msgspec.json.decode(capsys.readouterr().out, type=Cost)
    assert 0 < cost.agent_us < 1e6


def test_the_collector_is_settled_in_an_interpreter_of_its_own() -> None:
    before = gc.get_threshold()
    command = [sys.executable, "-m", "aios.bench.paper_agents", "5", "10", "settled"]
    ran = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own
    assert msgspec.json.decode(ran.stdout, type=Cost).agent_us > 0
    assert gc.get_threshold() == before


def test_pauses_are_as_long_as_the_longest() -> None:
    pauses = Pauses()
    gc.callbacks.append(pauses)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(pauses)
    assert 0 < pauses.longest_s < 10
