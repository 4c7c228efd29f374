"""Pages of agents that are elsewhere: kept, written ahead and fetched in time, and let go in the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import numpy as np
import pytest

from aios.abi.types import Kind, Right
from aios.config import ContextConfig
from aios.kernel.clock import SystemClock
from aios.kernel.context.files import HEAD_BYTES
from aios.kernel.context.manager import ContextManager
from aios.kernel.context.pages import PageStore
from aios.kernel.process import Process
from aios.kernel.process_table import ProcessTable
from aios.kernel.toolgaps import ToolGaps

pytestmark = pytest.mark.anyio

PAGE_TOKENS, PAGE_BYTES, N_FRAMES = 4, 64, 8


class HandClock(SystemClock):
    """Stands still until it is moved."""

    at_s = 100.0

    def now_s(self) -> float:
        return self.at_s


@dataclass
class House:
    """A store with room for eight pages, and what watches over it."""

    clock: HandClock
    store: PageStore
    gaps: ToolGaps
    table: ProcessTable

    def process(self, name: str) -> Process:
        rights = frozenset[Right]()
        return self.table.add(name, kind=Kind.TASK, parent=None, rights=rights, owner="me")

    def pages(self, first_token: int, n_pages: int = 3) -> list[bytes]:
        """Names of pages that begin like no others."""
        return self.store.keys(
            np.arange(first_token, first_token + n_pages * PAGE_TOKENS, dtype=np.int32)
        )

    def compute(self, keys: Sequence[bytes]) -> None:
        """What an engine does that needs them and has none of them."""
        for number, key in enumerate(keys):
            assert self.store.add(
                key, keys[number - 1] if number else None, lambda page: page.fill(1)
            )

    def call(self, process: Process, pages: Sequence[bytes], *tools: str) -> None:
        """A call to a model which takes no time."""
        run = process.begin("chat", max_calls=9)
        with self.gaps.call(run) as answer:
            answer.fingerprint, answer.pages, answer.tools = "model", tuple(pages), tools
        process.end(run)

    def learn(self, process: Process, gap_s: float, *tools: str) -> None:
        """Let the gaps after a tool be known."""
        for _ in range(4):
            self.call(process, self.pages(0, 1), *tools)
            self.clock.at_s += gap_s
        self.call(process, ())


@pytest.fixture
def house(tmp_path: Path) -> House:
    clock = HandClock()
    disk_bytes = 100 * (PAGE_BYTES + HEAD_BYTES)
    contexts = ContextManager(ContextConfig(N_FRAMES * PAGE_BYTES, disk_bytes), tmp_path)
    contexts.open_pages(fingerprint="model", page_tokens=PAGE_TOKENS, page_bytes=PAGE_BYTES)
    store = contexts.find_store("model")
    assert store is not None
    table = ProcessTable(clock=clock, max_alive=99, max_exited=9, max_log_bytes=1 << 10)
    return House(clock, store, ToolGaps(contexts, clock), table)


async def test_pages_of_an_agent_that_will_soon_be_back_are_evicted_last(house: House) -> None:
    agent, mine = house.process("agent"), house.pages(0)
    house.learn(agent, 2.0, "search")
    house.compute(mine)
    house.call(agent, mine, "search")
    for first in (1000, 2000, 3000):
        house.compute(house.pages(first))
    assert house.store.n_resident(mine) == 3
    house.gaps.forget(agent.pid)
    assert house.store.statistics().n_expected == 0
    for first in range(10_000, 90_000, 10_000):
        house.compute(house.pages(first))
    assert house.store.n_resident(mine) == 0, "nobody waits for them any more"
    house.store.check_invariants()


async def test_pages_are_fetched_before_their_agent_is_back_and_let_go_if_it_does_not_come(
    house: House,
) -> None:
    agent, mine = house.process("agent"), house.pages(0)
    house.learn(agent, 60.0, "build")
    busy = house.process("busy")
    for first in range(1000, 9000, 1000):  # memory turns over in some seconds
        house.compute(house.pages(first))
        house.call(busy, house.pages(first))
        house.clock.at_s += 1.0
    house.compute(mine)
    house.call(agent, mine, "build")
    next_s = await house.gaps.attend_due()
    assert house.store.statistics().n_paged_out == 3
    for first in range(10_000, 90_000, 10_000):
        house.compute(house.pages(first))
    assert house.store.n_resident(mine) == 0
    assert next_s is not None
    assert house.clock.at_s + 59.0 < next_s < house.clock.at_s + 60.0
    house.clock.at_s = next_s
    next_s = await house.gaps.attend_due()
    assert house.store.n_resident(mine) == 3
    statistics = house.store.statistics()
    assert (statistics.n_fetched, statistics.n_expected) == (3, 3)
    assert next_s is not None
    house.clock.at_s = next_s
    assert await house.gaps.attend_due() is None
    assert house.store.statistics().n_expected == 0


async def test_who_comes_back_early_has_its_pages_fetched_while_it_waits_for_a_turn(
    house: House,
) -> None:
    agent, mine = house.process("agent"), house.pages(0)
    house.learn(agent, 60.0, "build")
    house.compute(mine)
    house.call(agent, mine, "build")
    house.store.expect(str(agent.pid), ())
    for first in range(10_000, 90_000, 10_000):
        house.compute(house.pages(first))
    assert house.store.n_resident(mine) == 0
    run = agent.begin("chat", max_calls=9)
    with house.gaps.call(run):
        await house.gaps.attend_due()
        assert house.store.n_resident(mine) == 3
    assert await house.gaps.attend_due() is None, "a call that failed leaves nothing to do"
    agent.end(run)


async def test_nothing_is_done_for_agents_of_which_nothing_is_known(house: House) -> None:
    mine = house.pages(0)
    house.compute(mine)
    house.call(house.process("agent"), mine)
    assert await house.gaps.attend_due() is None
    assert house.store.statistics().n_expected == 0


async def test_it_can_be_switched_off(house: House) -> None:
    house.gaps.is_on = False
    agent, mine = house.process("agent"), house.pages(0)
    house.learn(agent, 1.0)
    house.call(agent, mine)
    assert await house.gaps.attend_due() is None


async def test_what_is_due_is_done_by_itself(house: House) -> None:
    clock = SystemClock()
    house.gaps.clock = clock
    agent, mine = house.process("agent"), house.pages(0)
    house.compute(mine)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.gaps.run)
            for _ in range(5):
                house.call(agent, mine)
                await anyio.sleep(0.01)
            house.call(agent, mine)
            assert house.store.statistics().n_expected == 3
            while house.store.statistics().n_expected:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
