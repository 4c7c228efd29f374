"""What contexts take of memory, and who is refused more."""

import anyio
import pytest
from tests.kernel.calls import slow_engine
from tests.kernel.conftest import OpenKernel
from tests.kernel.context.test_contexts import ANSWER, USER, idle, limited, opened

from aios.abi.calls import Chat
from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextFork,
    ContextOpen,
    ContextStat,
    WindowPolicy,
)
from aios.abi.types import JsonObject, Message, Role, ToolSpec
from aios.config import ContextConfig
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import NotFound, ResourceExhausted, TooLarge
from aios.kernel.context import contexts, shares

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


async def test_a_full_family_forgets_old_compactions_and_pages_before_it_is_refused_anything(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MAX_FAMILY_BYTES", 100_000)
    monkeypatch.setattr(contexts, "SPARE_BYTES", 10_000)
    paging = ContextOpen(messages=(USER,), window=WindowPolicy.PAGE_TO_MEMORY)
    async with booted(ScriptedEngine()) as kernel:
        above = kernel.spawn_task("agent", idle)
        below = kernel.spawn_task("child", idle, ppid=above)
        gates = [kernel.gate(pid) for pid in (above, below, above)]
        held = [(await gate.call(paging)).value.id for gate in gates]
        for number in range(200):
            gate, context = gates[number % 2], held[number % 2]
            said = (ANSWER, Message(Role.USER, f"{number} " * 400))
            await gate.call(ContextAppend(context=context, messages=said))
            if number > 1:
                await gate.call(ContextCompact(context=context))
            kernel.check_invariants()
        infos = [(await kernel.init_gate().call(ContextStat(context=c))).value for c in held]
        assert all(each.n_pages < 20 for each in infos[:2]), "of 91"
        await gates[0].call(ContextFault(context=held[0], pointer=91))
        with pytest.raises(NotFound, match="leads nowhere any more"):
            await gates[0].call(ContextFault(context=held[0], pointer=1))
        said = (ANSWER, USER)
        for n_bytes in (40_000, 19_000):
            said = (ANSWER, Message(Role.USER, "x" * n_bytes))
            await gates[2].call(ContextAppend(context=held[2], messages=said))
        infos = [(await kernel.init_gate().call(ContextStat(context=c))).value for c in held]
        assert not any(each.compactions or each.n_pages for each in infos)
        with pytest.raises(ResourceExhausted, match="agent and what it started hold 9"):
            await gates[2].call(ContextAppend(context=held[2], messages=said))
        kernel.check_invariants()


async def test_an_answer_is_kept_though_the_family_is_full_by_now(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MAX_FAMILY_BYTES", 20_000)
    async with booted(ScriptedEngine(script=Script(replies=("y" * 9_000,)))) as kernel:
        gate = kernel.gate(kernel.spawn_task("agent", idle))
        context = await opened(gate, Message(Role.USER, "x" * 15_000))
        answer = (await gate.call(Chat(context=context, messages=()))).value
        assert answer.message.content == "y" * 9_000
        assert (await gate.call(ContextStat(context=context))).value.n_messages == 2
        kernel.check_invariants()
        with pytest.raises(ResourceExhausted, match="agent and what it started hold 2"):
            await gate.call(ContextAppend(context=context, messages=(USER,)))


async def test_what_is_asked_has_its_room_until_it_is_answered_and_no_longer(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MAX_FAMILY_BYTES", 20_000)
    async with booted(slow_engine(n_tokens=100_000)) as kernel:
        gate = kernel.gate(kernel.spawn_task("agent", idle))
        context, closed = await opened(gate), await opened(gate)
        large = Message(Role.USER, "x" * 12_000)
        for each in (context, closed):
            with anyio.fail_after(30):
                async with gate.open_call(Chat(context=each, messages=(large,))) as frames:
                    await frames.__aiter__().__anext__()
                    kernel.check_invariants()
                    with pytest.raises(ResourceExhausted, match="agent and what it started hold 1"):
                        await opened(gate, large)
                    if each is closed:
                        await gate.call(ContextClose(context=each))
            kernel.check_invariants()
        await opened(gate, large)
