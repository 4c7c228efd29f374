import anyio
import pytest
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import GetPid, Logs
from aios.abi.types import Pid
from aios.errors import KernelStopping, NotFound

pytestmark = pytest.mark.anyio


async def test_the_result_can_be_had_without_reading_the_frames(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=20)) as kernel:
            async with kernel.init_gate().open_call(chat()) as frames:
                assert (await frames.result()).value.usage.completion_tokens == 20


async def test_a_fault_is_raised_to_the_reader(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            async with kernel.init_gate().open_call(Logs(pid=Pid(99))) as frames:
                with pytest.raises(NotFound):
                    await anext(frames)
                with pytest.raises(NotFound):
                    await frames.result()


async def test_leaving_early_cancels_the_call_and_waits_for_its_end(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel:
            async with kernel.init_gate().open_call(chat()) as frames:
                await anext(frames)
            assert not kernel.init.runs
            assert kernel.scheduler.statistics()["engine:engine0"].n_granted == 0


async def test_a_kernel_that_stops_takes_no_new_calls(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        await kernel.drain(0)
        with pytest.raises(KernelStopping):
            await gate.call(GetPid())
        with pytest.raises(KernelStopping):
            async with gate.open_call(GetPid()):
                pass
