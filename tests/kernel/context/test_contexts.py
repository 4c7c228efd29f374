import anyio
import msgspec
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextFork,
    ContextId,
    ContextList,
    ContextOpen,
    ContextRead,
    ContextStat,
)
from aios.abi.types import Message, Pid, Role, ToolCall, ToolSpec
from aios.config import ContextConfig
from aios.errors import AccessDenied, InvalidCall, NotFound, ResourceExhausted, TooLarge
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.process import Process, Run

pytestmark = pytest.mark.anyio

USER = Message(Role.USER, "hi")
ANSWER = Message(Role.ASSISTANT, "hello")
CALL = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "clock", "{}"),))


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def opened(gate: LocalGate, *messages: Message) -> ContextId:
    return (await gate.call(ContextOpen(messages=messages))).value.id


async def test_messages_are_added_whole_or_not_at_all(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, Message(Role.SYSTEM, "be brief"))
        await gate.call(ContextAppend(context=context, messages=(USER, CALL)))
        info = (await gate.call(ContextStat(context=context))).value
        assert (info.pid, info.n_messages, info.unanswered) == (1, 3, ("a",))
        with pytest.raises(InvalidCall, match="no results"):
            await gate.call(ContextAppend(context=context, messages=(USER,)))
        late = Message(Role.TOOL, "noon", tool_call_id="a")
        with pytest.raises(InvalidCall, match="second result"):
            await gate.call(ContextAppend(context=context, messages=(late, late)))
        assert (await gate.call(ContextStat(context=context))).value == info
        await gate.call(ContextAppend(context=context, messages=(late,), is_pinned=True))
        read = (await gate.call(ContextRead(context=context))).value
        assert [m.role.value for m in read.messages] == ["system", "user", "assistant", "tool"]
        assert read.pinned == (3,)


async def test_a_fork_goes_its_own_way(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        tool = ToolSpec("clock")
        trunk = (await gate.call(ContextOpen(messages=(USER,), tools=(tool,), model="m"))).value.id
        branch = (await gate.call(ContextFork(context=trunk))).value
        assert branch.model == "m"
        await gate.call(ContextAppend(context=branch.id, messages=(ANSWER,)))
        assert (await gate.call(ContextStat(context=trunk))).value.n_messages == 1
        await gate.call(ContextClose(context=trunk))
        assert len((await gate.call(ContextRead(context=branch.id))).value.messages) == 2
        with pytest.raises(NotFound):
            await gate.call(ContextFork(context=trunk))


@pytest.mark.no_cover
async def test_a_thousand_forks_share_their_messages(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        long = tuple(Message(role, "x" * 500) for role in (Role.USER, Role.ASSISTANT) * 50)
        trunk = await opened(gate, *long)
        forks = [(await gate.call(ContextFork(context=trunk))).value.id for _ in range(1000)]
        table = kernel.context_table
        runs = {id(context.transcript) for context in table._by_id.values()}
        assert len(runs) == 1, "not one tuple was copied"
        assert len(set(forks)) == 1000


async def test_a_list_says_little_of_many_contexts(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        call = ToolCall("a" * 100_000, "clock", "{}")
        trunk = await opened(gate, USER, Message(Role.ASSISTANT, tool_calls=(call,)))
        forks = [(await gate.call(ContextFork(context=trunk))).value.id for _ in range(100)]
        listed = (await gate.call(ContextList())).value
        assert [each.id for each in listed.contexts] == [trunk, *forks]
        assert [len(each.unanswered) for each in listed.contexts] == [1] * 10 + [0] * 91
        assert len(msgspec.msgpack.encode(listed)) < 2 << 20
        assert (await gate.call(ContextStat(context=forks[-1]))).value.unanswered == (call.id,)


async def test_a_process_reaches_its_own_and_its_descendants_contexts_only(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("child", idle, ppid=parent)
        guest = kernel.admit("eve")[0].pid
        gates = {pid: kernel.gate(pid) for pid in (parent, child, guest)}
        own = {pid: await opened(gate, USER) for pid, gate in gates.items()}

        async def seen(pid: Pid) -> set[ContextId]:
            return {c.id for c in (await gates[pid].call(ContextList())).value.contexts}

        assert await seen(parent) == {own[parent], own[child]}
        assert await seen(child) == {own[child]}
        assert await seen(guest) == {own[guest]}
        await gates[parent].call(ContextAppend(context=own[child], messages=(USER,)))
        for pid, other in ((child, parent), (guest, child), (parent, guest)):
            for call in (
                ContextStat(context=own[other]),
                ContextRead(context=own[other]),
                ContextFork(context=own[other]),
                ContextAppend(context=own[other], messages=(USER,)),
                ContextClose(context=own[other]),
            ):
                with pytest.raises(AccessDenied):
                    await gates[pid].call(call)


async def test_contexts_end_with_their_process(booted: OpenKernel) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("agent", idle)
        context = await opened(kernel.gate(pid), USER)
        fork = (await kernel.init_gate().call(ContextFork(context=context))).value.id
        await kernel.signals.kill(kernel.table.get(pid), reason="test")
        assert kernel.context_table.statistics().n_contexts == 1
        with pytest.raises(NotFound):
            await kernel.init_gate().call(ContextStat(context=context))
        await kernel.init_gate().call(ContextClose(context=fork))
        assert kernel.context_table.statistics().n_contexts == 0
        assert not kernel.context_table._held


def limited(kernel: Kernel, limits: ContextConfig) -> LocalGate:
    kernel.context_table._limits = limits
    return kernel.init_gate()


async def test_what_a_process_may_hold_is_bounded(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = limited(kernel, ContextConfig(max_contexts=2, max_messages=3, max_bytes=2_000))
        context = await opened(gate, USER, ANSWER)
        await opened(gate)
        with pytest.raises(ResourceExhausted, match="has 2 contexts"):
            await opened(gate)
        with pytest.raises(ResourceExhausted):
            await gate.call(ContextFork(context=context))
        with pytest.raises(TooLarge, match="4 messages"):
            await gate.call(ContextAppend(context=context, messages=(USER, ANSWER)))
        with pytest.raises(TooLarge, match="a context holds 2000"):
            await gate.call(
                ContextAppend(context=context, messages=(Message(Role.USER, "x" * 2_000),))
            )
        assert (await gate.call(ContextStat(context=context))).value.n_messages == 2
        await gate.call(ContextClose(context=context))
        await opened(gate)


def _run(process: Process) -> Run:
    return Run(process, 1, "context", anyio.CancelScope())


async def test_a_number_that_was_taken_when_a_program_was_replayed_is_its_own_when_it_is_free(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pids = [kernel.spawn_task(name, idle) for name in ("source", "copy")]
        source, copy = (kernel.table.get(pid) for pid in pids)
        ours, table = _run(copy), kernel.context_table
        told = (await table.open(_run(source), ContextOpen())).id

        async def replayed() -> ContextId:
            """What a fork does that was told the number of its source's context."""
            table.close_all(copy)
            with table.numbering(copy, told):
                found = await table.open(ours, ContextOpen())
            await table.append(ours, ContextAppend(context=told, messages=(USER,)))
            (held,) = table.of(copy)
            assert (held.id, len(held.items)) == (found.id, 1)
            return found.id

        assert await replayed() != told
        table.close_all(source)
        assert await replayed() == told
