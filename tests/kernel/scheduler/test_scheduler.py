import anyio
import pytest

from aios.abi.types import Kind, Pid, Right
from aios.errors import ResourceExhausted
from aios.kernel.clock import SystemClock
from aios.kernel.logs import LogBuffer
from aios.kernel.process import Process, Run
from aios.kernel.scheduler.policy import Fifo
from aios.kernel.scheduler.scheduler import Scheduler

pytestmark = pytest.mark.anyio


def scheduler_of(capacity: int, *, max_queue: int = 100) -> Scheduler:
    scheduler = Scheduler(Fifo(), SystemClock(), max_queue)
    scheduler.set_capacity("engine", capacity)
    return scheduler


def run_of(pid: int) -> Run:
    process = Process(
        pid=Pid(pid),
        ppid=Pid(0),
        name=f"p{pid}",
        kind=Kind.TASK,
        owner="me",
        rights=frozenset(Right),
        log=LogBuffer(Pid(pid), 1000),
    )
    return process.begin("chat", max_calls=9)


async def test_a_cancelled_wait_is_withdrawn_and_the_next_gets_the_turn() -> None:
    scheduler = scheduler_of(1)
    order: list[int] = []

    async def take(number: int, release: anyio.Event) -> None:
        async with scheduler.turn(run_of(number), "engine"):
            order.append(number)
            await release.wait()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            release, give_up = anyio.Event(), anyio.CancelScope()

            async def impatient() -> None:
                with give_up:
                    await take(2, release)

            tasks.start_soon(take, 1, release)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(impatient)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(take, 3, release)
            await anyio.wait_all_tasks_blocked()
            give_up.cancel()
            await anyio.wait_all_tasks_blocked()
            scheduler.check_invariants()
            release.set()
    assert order == [1, 3]
    assert scheduler.statistics()["engine"].n_queued == 0


async def test_a_turn_that_fails_is_given_back() -> None:
    scheduler = scheduler_of(1)
    with pytest.raises(LookupError):
        async with scheduler.turn(run_of(1), "engine"):
            raise LookupError
    assert scheduler.statistics()["engine"].n_granted == 0


async def test_a_full_queue_refuses_and_the_turn_leaves_nothing_behind() -> None:
    scheduler = scheduler_of(1, max_queue=0)
    run = run_of(1)
    async with scheduler.turn(run, "engine"):
        with pytest.raises(ResourceExhausted):
            async with scheduler.turn(run, "engine"):
                pass
    assert scheduler.statistics()["engine"].n_granted == 0
    scheduler.check_invariants()


async def test_a_hold_interrupts_the_holder_and_it_gets_its_turn_back_after() -> None:
    scheduler = scheduler_of(1)
    steps: list[str] = []
    run = run_of(1)

    async def work() -> None:
        async with scheduler.turn(run, "engine") as turn:
            with turn.interruptible():
                await anyio.sleep_forever()
            steps.append("interrupted")
            await turn.renew()
            steps.append("renewed")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            scheduler.hold(Pid(1))
            await anyio.wait_all_tasks_blocked()
            assert steps == ["interrupted"]
            assert run.is_parked
            async with scheduler.turn(run_of(2), "engine"):
                steps.append("other")
            scheduler.unhold(Pid(1))
    assert steps == ["interrupted", "other", "renewed"]
    assert run.waited_s > 0


async def test_waiting_and_running_are_accounted_to_the_run() -> None:
    scheduler = scheduler_of(1)
    first, second = run_of(1), run_of(2)

    async def hold_a_while() -> None:
        async with scheduler.turn(first, "engine"):
            await anyio.sleep(0.05)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_a_while)
            await anyio.wait_all_tasks_blocked()
            async with scheduler.turn(second, "engine"):
                assert second.running_since_s is not None
    assert first.waited_s == 0
    assert first.ran_s >= 0.05
    assert second.waited_s >= 0.04
    assert second.running_since_s is None
