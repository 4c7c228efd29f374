"""How many advisory locks there may be."""

import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.errors import Conflict, ResourceExhausted
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.storage import locks
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio

N_LOCKS = 3


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MAX_LOCKS", N_LOCKS)


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str) -> Files:
    return Files(kernel.gate(kernel.spawn_task(name, idle)))


async def test_a_process_holds_so_many_locks_and_prolongs_and_gives_back(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        for number in range(N_LOCKS):
            await ann.lock(f"/shared/{number}")
        with pytest.raises(ResourceExhausted, match="holds 3 locks"):
            await ann.lock("/shared/more")
        await ann.lock("/shared/0")
        await bob.lock("/shared/more")
        await ann.unlock("/shared/0")
        await ann.lock("/shared/another")
        with pytest.raises(Conflict):
            await bob.lock("/shared/another", is_waiting=False)
        await bob.lock("/shared/0", is_waiting=False)


async def test_a_lease_that_is_over_takes_no_place(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        with anyio.fail_after(30):
            for number in range(5 * N_LOCKS):
                await ann.lock(f"/shared/{number}", lease_s=1e-6)
            await bob.lock("/shared/0", is_waiting=False)
        assert len(kernel.storage._locks._leases) <= N_LOCKS + 1


async def test_who_lost_a_lock_to_another_gives_it_back_no_more(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (ann, bob), eve = (agent(kernel, name) for name in ("ann", "bob")), agent(kernel, "eve")
        await ann.lock("/shared/a", lease_s=1e-6)
        await bob.lock("/shared/a")
        await ann.unlock("/shared/a")
        for number in range(N_LOCKS):
            await ann.lock(f"/shared/{number}")
        for process in list(kernel.table):
            if process.name == "ann":
                await kernel.signals.kill(process, reason="test")
        with pytest.raises(Conflict):
            await eve.lock("/shared/a", is_waiting=False)
        await eve.lock("/shared/0", is_waiting=False)
        assert set(kernel.storage._locks._leases) == {"/shared/a", "/shared/0"}
