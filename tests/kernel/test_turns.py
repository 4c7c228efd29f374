"""Comparisons, which come one after another: who waits, in which order, and what a stop does to them."""

import os
from collections.abc import Iterator
from contextlib import closing, suppress

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle

from aios.abi.calls import Spawn, Stop
from aios.errors import NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


class Comparisons:
    """Each takes until it is let go on."""

    def __init__(self) -> None:
        self._ended, self._end = os.pipe()
        self.done: list[str] = []

    def compare(self, *_: object) -> str:
        os.read(self._ended, 1)
        return ""

    async def end_one(self) -> None:
        n_done = len(self.done)
        os.write(self._end, b".")
        while len(self.done) == n_done:
            await anyio.sleep(0.001)

    async def make(self, gate: LocalGate, name: str) -> None:
        await Files(gate).diff("/shared/a")
        self.done.append(name)

    def close(self) -> None:
        os.close(self._ended)
        os.close(self._end)

    def read(self, *_: object) -> None:
        """Read a manifest, as slowly."""
        os.read(self._ended, 1)
        raise NotFound("no program")

    async def spawn(self, gate: LocalGate, name: str) -> None:
        with suppress(NotFound):
            await gate.call(Spawn("program"))
        self.done.append(name)


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comparisons]:
    with closing(Comparisons()) as found:
        monkeypatch.setattr("aios.kernel.storage.manager.compare", found.compare)
        yield found


async def written(kernel: Kernel) -> LocalGate:
    gate = kernel.init_gate()
    for text in ("a", "b"):
        await Files(gate).write("/shared/a", text)
    return gate


async def test_who_waits_for_a_turn_can_be_stopped_and_keeps_nobody_else_waiting(
    booted: OpenKernel, comparisons: Comparisons
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            owner, bob = await written(kernel), kernel.spawn_task("bob", idle)
            tasks.start_soon(comparisons.make, owner, "first")
            await wait_all_tasks_blocked()
            tasks.start_soon(comparisons.make, kernel.gate(bob), "bob")
            await wait_all_tasks_blocked()
            tasks.start_soon(comparisons.make, owner, "second")
            await owner.call(Stop(pid=bob))
            await comparisons.end_one()
            await comparisons.end_one()
            assert comparisons.done == ["first", "second"]
            kernel.signals.cont(kernel.table.get(bob))
            await comparisons.end_one()
            assert comparisons.done[2:] == ["bob"]


async def test_of_one_family_one_comparison_waits_among_those_of_others(
    booted: OpenKernel, comparisons: Comparisons
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            owner, bob = await written(kernel), kernel.spawn_task("bob", idle)
            for gate, name in [(kernel.gate(bob), "bob")] * 3 + [(owner, "owner")]:
                tasks.start_soon(comparisons.make, gate, name)
                await wait_all_tasks_blocked()
            for _ in range(4):
                await comparisons.end_one()
    assert comparisons.done == ["bob", "owner", "bob", "bob"]


async def test_of_one_family_one_program_is_read_among_those_of_others(
    booted: OpenKernel, comparisons: Comparisons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.programs.load_program", comparisons.read)
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            kernel.urls.append("http://localhost:1")
            bob = kernel.gate(kernel.spawn_task("bob", idle))
            for gate, name in [(bob, "bob")] * 3 + [(kernel.init_gate(), "owner")]:
                tasks.start_soon(comparisons.spawn, gate, name)
                await wait_all_tasks_blocked()
            for _ in range(4):
                await comparisons.end_one()
    assert comparisons.done == ["bob", "owner", "bob", "bob"]
