import anyio
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import declared, idle, offer, run_tool

from aios.abi.calls import Kill
from aios.abi.tools import ToolJob, ToolList, ToolRegister, ToolReturn, ToolTake
from aios.errors import NotFound, ToolFailed

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

        with anyio.fail_after(5):
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
        with anyio.fail_after(5):
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


async def test_a_call_that_nobody_took_is_gone_when_its_caller_is(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await gate.call(ToolRegister(tools=(declared("f"),)))
        with anyio.fail_after(5):
            caller = kernel.spawn_task("caller", use_f)
            await wait_all_tasks_blocked()
            await kernel.init_gate().call(Kill(pid=caller))
            last = kernel.spawn_task("last", use_f)
            (job,) = (await gate.call(ToolTake())).value.jobs
        assert job.caller == last, "the dead one's call never came"
