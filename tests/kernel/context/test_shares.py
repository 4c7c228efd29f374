"""What contexts take of memory, and who is refused more."""

import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.context.test_contexts import ANSWER, USER, idle, limited, opened

from aios.abi.contexts import ContextAppend, ContextClose, ContextFork, ContextOpen
from aios.abi.types import JsonObject, Message, Role, ToolSpec
from aios.config import ContextConfig
from aios.errors import ResourceExhausted, TooLarge

pytestmark = pytest.mark.anyio


async def test_tools_of_a_context_are_bounded_by_what_they_take_in_memory(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        gate = limited(kernel, ContextConfig(max_bytes=100_000))
        hollow: JsonObject = {"anyOf": [[] for _ in range(2_000)]}
        for tool in (ToolSpec("t", "x" * 100_000), ToolSpec("t", parameters=hollow)):
            with pytest.raises(TooLarge, match="of tools; a context holds 100000"):
                await gate.call(ContextOpen(tools=(tool,)))
        await gate.call(ContextOpen(tools=(ToolSpec("t", "x" * 90_000),)))


async def test_what_a_family_holds_in_contexts_is_bounded_and_given_back(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        above = kernel.spawn_task("agent", idle)
        below = kernel.spawn_task("child", idle, ppid=above)
        other = kernel.spawn_task("other", idle)
        large = Message(Role.USER, "x" * (15 << 20))
        held = [await opened(kernel.gate(pid), large) for pid in (above, below) * 8]
        last = await opened(kernel.gate(below), USER)
        held.append(await opened(kernel.gate(above), large))
        for call in (
            ContextOpen(messages=(large,)),
            ContextOpen(tools=(ToolSpec("t", "x" * (15 << 20)),)),
            ContextFork(context=held[1]),
            ContextAppend(context=last, messages=(ANSWER, large)),
        ):
            with pytest.raises(ResourceExhausted, match="agent and what it started hold 26"):
                await kernel.gate(below).call(call)
        await kernel.gate(below).call(ContextAppend(context=last, messages=(ANSWER, USER)))
        await opened(kernel.gate(other), large)
        await opened(kernel.init_gate(), large)
        await kernel.gate(above).call(ContextClose(context=held[-1]))
        fork = (await kernel.gate(below).call(ContextFork(context=held[1]))).value.id
        await kernel.init_gate().call(ContextFork(context=fork))
        await kernel.signals.kill(kernel.table.get(below), reason="test")
        for _ in range(8):
            await opened(kernel.gate(above), large)
        kernel.check_invariants()
