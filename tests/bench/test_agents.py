"""The load of the `workload` bench: the same work for every server."""

import anyio
import pytest

from aios.bench.agents import Outcome, Turn, run_load, scripts, warm_up
from aios.bench.bench import Shape
from aios.bench.children import daemon, scratch_folder
from aios.sdk.client import Client
from aios.sdk.socket import UnixGate

SHAPE = Shape(n_agents=3, n_turns=3, max_tokens=8, n_rules=4)


def test_the_same_seed_gives_the_same_agents_and_another_others() -> None:
    assert scripts(SHAPE, 1) == scripts(SHAPE, 1)
    assert scripts(SHAPE, 1) != scripts(SHAPE, 2)


def test_agents_share_their_head_and_nothing_else() -> None:
    made = scripts(SHAPE, 1)
    heads = {script.system.rpartition("\n")[0] for script in made}
    assert len(heads) == 1
    assert heads.pop().count("\nRule ") == SHAPE.n_rules
    assert len({script.task for script in made}) == SHAPE.n_agents
    assert {len(script.results) for script in made} == {SHAPE.n_turns - 1}
    assert all(0.15 <= tool_s <= 0.45 for script in made for _, tool_s in script.results)


def test_computed_tokens_are_those_that_no_cache_held() -> None:
    turns = [Turn(0.1, 0.2, 100, 0, 8), Turn(0.1, 0.2, 150, 120, 8)]
    assert Outcome(turns=turns).n_computed_tokens == 130


@pytest.mark.anyio
async def test_every_turn_brings_exactly_as_many_tokens_as_were_asked_for() -> None:
    with anyio.fail_after(60), scratch_folder() as folder:
        async with daemon(folder, {"AIOS_ENGINE_KIND": "scripted"}) as served:
            url = served.http_url + "/v1"
            await warm_up(url, served.token)
            outcome = await run_load(url, lambda i: f"{served.token}.agent-{i}", SHAPE, seed=1)
            async with UnixGate.connect(served.socket, served.token) as gate:
                ps = await Client(gate).ps()
    assert outcome.failures == []
    assert len(outcome.turns) == SHAPE.n_agents * SHAPE.n_turns
    assert {turn.n_tokens for turn in outcome.turns} == {SHAPE.max_tokens}
    assert all(0 < turn.first_s <= turn.total_s < outcome.makespan_s for turn in outcome.turns)
    assert {"agent-0", "agent-1", "agent-2"} <= {process.name for process in ps}


@pytest.mark.anyio
async def test_calls_that_fail_are_counted_and_do_not_stop_the_others() -> None:
    with anyio.fail_after(60), scratch_folder() as folder:
        async with daemon(folder, {"AIOS_ENGINE_KIND": "none"}) as served:
            outcome = await run_load(served.http_url + "/v1", lambda _: served.token, SHAPE, seed=1)
    assert outcome.turns == []
    assert len(outcome.failures) == SHAPE.n_agents
    assert all(failure.startswith("HTTP 503") for failure in outcome.failures)
