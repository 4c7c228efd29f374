import anyio
import pytest
from msgspec.structs import replace
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import CountTokens
from aios.abi.types import ToolSpec
from aios.kernel.scheduler.policy import Mlfq

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("is_remote", "is_read", "n_most"), [(True, True, 999), (True, False, 999), (False, False, 32)]
)
async def test_a_call_that_is_cut_off_counts_what_was_computed_of_its_prompt(
    booted: OpenKernel, *, is_remote: bool, is_read: bool, n_most: int
) -> None:
    """An endpoint that has told nothing may have computed all of it."""
    engine, policy = slow_engine(token_delay_s=0.01 if is_read else 100.0), Mlfq()
    call = replace(chat(), tools=(ToolSpec("clock", "tick " * 100, {}),))
    with anyio.fail_after(30):
        async with booted(engine) as kernel:
            kernel.cores.get("engine0").kind = "openai" if is_remote else "llama"
            kernel.scheduler.set_policy(policy)
            count = CountTokens(call.messages, call.tools)
            n_prompt = (await kernel.init_gate().call(count)).value.n_tokens
            agent = kernel.admit("agent")[0]
            async with kernel.gate(agent.pid).open_call(call) as frames:
                while not engine.statistics().n_running:
                    await anyio.sleep(0.001)
                if is_read:
                    await anext(aiter(frames))
            await agent.wait_drained()
            assert agent.usage.prompt_tokens == (n_prompt if is_read else 0), "told by the engine"
            assert min(100, n_most) <= policy.lately_tokens(agent.pid) <= n_most
