import anyio
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import declared, idle, offer, run_tool

from aios.abi.calls import Cont, Kill, Stop
from aios.abi.tools import (
    JobEnd,
    ToolJob,
    ToolJobs,
    ToolList,
    ToolRegister,
    ToolReturn,
    ToolTake,
    Traits,
)
from aios.errors import InvalidCall, NotFound, ToolFailed
from aios.kernel.gate import LocalGate

pytestmark = pytest.mark.anyio


async def test_tools_end_with_their_process_and_running_calls_fail(booted: OpenKernel) -> None:
    async with booted() as kernel:
        errors: list[str] = []

        async def hang(_: ToolJob) -> str:
            await anyio.sleep_forever()
            return ""

        async def use() -> None:
            with pytest.raises(ToolFailed) as error:
                await run_tool(kernel.init_gate(), "ann/f")
            errors.append(error.value.message)

        with anyio.fail_after(30):
            pid = await offer(kernel, "ann", hang, declared("f"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                await wait_all_tasks_blocked()
                await kernel.init_gate().call(Kill(pid=pid))
            names = [tool.name for tool in (await kernel.init_gate().call(ToolList())).value.tools]
            with pytest.raises(NotFound):
                await run_tool(kernel.init_gate(), "ann/f")
        assert "has ended" in errors[0]
        assert "ann/f" not in names


async def test_who_runs_a_call_is_told_when_nobody_wants_it(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await gate.call(ToolRegister(tools=(declared("f"),)))
        killed = anyio.Event()

        async def kill_the_caller() -> None:
            await kernel.init_gate().call(Kill(pid=caller))
            killed.set()

        caller = kernel.spawn_task("caller", use_f)
        with anyio.fail_after(30):
            (job,) = (await gate.call(ToolTake())).value.jobs
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill_the_caller)
                told = (await gate.call(ToolTake())).value
                assert told.cancelled == (job.id,)
                assert not killed.is_set(), "the kill waits a moment for the one who acts"
                await gate.call(ToolReturn(id=job.id, error="cancelled"))
                await killed.wait()


async def use_f(gate: object) -> None:
    """A process that runs the tool of `ann`."""
    await run_tool(gate, "ann/f")  # type: ignore[arg-type]  # a gate


async def test_what_is_no_json_makes_no_tool_and_no_argument(booted: OpenKernel) -> None:
    strange: dict[str, object] = {"default": {1: 2}}
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        for tool in (declared("f", parameters=strange), declared("f", returns=strange)):
            with pytest.raises(InvalidCall, match="the schema is no JSON"):
                await gate.call(ToolRegister(tools=(tool,)))
        with pytest.raises(InvalidCall, match="what JSON cannot"):
            await run_tool(gate, "clock", zone={1: 2})


async def test_a_call_that_nobody_took_is_gone_when_its_caller_is(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await gate.call(ToolRegister(tools=(declared("f"),)))
        with anyio.fail_after(30):
            caller = kernel.spawn_task("caller", use_f)
            await wait_all_tasks_blocked()
            await kernel.init_gate().call(Kill(pid=caller))
            last = kernel.spawn_task("last", use_f)
            (job,) = (await gate.call(ToolTake())).value.jobs
        assert job.caller == last, "the dead one's call never came"


async def test_a_take_hands_over_what_has_ended_once(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await gate.call(ToolRegister(tools=(declared("f"),)))
        told: list[str] = []

        async def use() -> None:
            told.append((await run_tool(kernel.init_gate(), "ann/f")).text)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                ended: tuple[JobEnd, ...] = ()
                for n in range(3):
                    tasks.start_soon(use)
                    (job,) = (await gate.call(ToolTake(returns=ended))).value.jobs
                    ended = (JobEnd(job.id, str(n + 1)), JobEnd(job.id, "again"))
                last = ended[0].id
                await gate.call(ToolReturn(id=last, text="3"))
                with pytest.raises(NotFound):
                    await gate.call(ToolReturn(id=last, text="late"))
        assert told == ["1", "2", "3"]


async def test_a_call_wakes_one_taker_who_hears_how_many_more_are_wanted(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await gate.call(ToolRegister(tools=(declared("f"),)))
        found: list[ToolJobs] = []

        async def take(limit: int = 1) -> None:
            found.append((await gate.call(ToolTake(limit=limit))).value)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                async with anyio.create_task_group() as callers:
                    for _ in range(4):
                        callers.start_soon(run_tool, kernel.init_gate(), "ann/f")
                    await wait_all_tasks_blocked()
                    await take()
                    assert found[-1].n_wanted == 4, "three for those that wait, and one to wait"
                    for _ in range(3):
                        await take()
                    assert [each.n_wanted for each in found] == [4, 0, 0, 0], "it was said once"
                    for limit in (1, 0, 1):
                        tasks.start_soon(take, limit)
                    await wait_all_tasks_blocked()
                    callers.start_soon(run_tool, kernel.init_gate(), "ann/f")
                    await wait_all_tasks_blocked()
                    assert (len(found), found[-1].n_wanted) == (5, 0), "another waits already"
                    callers.cancel_scope.cancel()
                (told,) = found[5:]
                ids = [job.id for each in found for job in each.jobs]
                assert (len(ids), sorted(told.cancelled)) == (5, ids), "to who takes no calls"
                tasks.cancel_scope.cancel()


async def test_who_leaves_while_it_is_woken_lets_the_next_one_take(booted: OpenKernel) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        gate, owner = kernel.gate(pid), kernel.init_gate()
        await gate.call(ToolRegister(tools=(declared("f"),)))
        first, taken = anyio.CancelScope(), anyio.Event()

        async def leave() -> None:
            with first:
                await gate.call(ToolTake())

        async def serve(gate: LocalGate) -> None:
            (job,) = (await gate.call(ToolTake())).value.jobs
            await gate.call(ToolReturn(id=job.id))
            taken.set()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
                await wait_all_tasks_blocked()
                tasks.start_soon(serve, gate)
                await wait_all_tasks_blocked()
                await owner.call(Stop(pid=pid))
                tasks.start_soon(run_tool, owner, "ann/f")
                await wait_all_tasks_blocked()
                first.cancel()
                assert not taken.is_set()
                await owner.call(Cont(pid=pid))
                await taken.wait()


async def test_a_program_that_begins_anew_has_no_call_any_more_that_it_took(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        gate, told = kernel.gate(pid), list[str]()
        await gate.call(ToolRegister(tools=(declared("f", Traits(effect="compensable")),)))

        async def use() -> None:
            try:
                told.append((await run_tool(kernel.init_gate(), "ann/f")).text)
            except ToolFailed as error:
                told.append(error.message)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(use)
                await gate.call(ToolTake(limit=1))
                kernel.tools.begin_anew(kernel.table.get(pid))
                (job,) = (await gate.call(ToolTake())).value.jobs
                await gate.call(ToolReturn(id=job.id, text="6"))
        assert "began anew in the middle of it" in told[0]
        assert told[1:] == ["6"]


async def test_a_call_that_its_program_crashes_of_is_not_run_for_ever(booted: OpenKernel) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        gate = kernel.gate(pid)
        await gate.call(ToolRegister(tools=(declared("f", Traits(effect="pure")),)))

        async def crash() -> None:
            (job,) = (await gate.call(ToolTake())).value.jobs
            assert job.tool == "f"
            kernel.tools.begin_anew(kernel.table.get(pid))

        async def use() -> None:
            with pytest.raises(ToolFailed, match="began anew in the middle of it"):
                await run_tool(kernel.init_gate(), "ann/f")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                for _ in range(2):
                    await crash()
