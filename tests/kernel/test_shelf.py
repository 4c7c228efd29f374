from pathlib import Path

import pytest

from aios.abi.calls import Chat
from aios.abi.contexts import (
    ContextForget,
    ContextId,
    ContextOpen,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextSnapshots,
    WindowPolicy,
)
from aios.abi.types import Message, Role, Sampling, ToolSpec
from aios.config import Config, Home
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied, Conflict, InvalidCall, NotFound, SnapshotIncompatible
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel
from aios.sdk.requests import build

pytestmark = pytest.mark.anyio

USER = Message(Role.USER, "hi")


async def opened(gate: LocalGate) -> ContextId:
    call = ContextOpen(messages=(USER,), tools=(ToolSpec("clock"),), window=WindowPolicy.SUMMARISE)
    return (await gate.call(call)).value.id


async def test_a_snapshot_survives_the_kernel_and_goes_on(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate)
        await gate.call(Chat(context=context, messages=(), sampling=Sampling(seed=1)))
        before = (await gate.call(ContextRead(context=context))).value
        info = (await gate.call(ContextSnapshot(context=context, name="talk"))).value
        assert (info.owner, info.n_messages) == ("owner", 2)
        with pytest.raises(Conflict):
            await gate.call(ContextSnapshot(context=context, name="talk"))
        await gate.call(ContextSnapshot(context=context, name="talk", is_replacing=True))
    async with open_kernel(Config(), Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        gate = kernel.init_gate()
        [listed] = (await gate.call(ContextSnapshots())).value.snapshots
        assert listed.name == "talk"
        restored = (await gate.call(ContextRestore(name="talk"))).value
        assert restored.window is WindowPolicy.SUMMARISE
        assert restored.n_tokens > 0
        assert (await gate.call(ContextRead(context=restored.id))).value == before
        await gate.call(Chat(context=restored.id, messages=(USER,)))
        await gate.call(ContextForget(name="talk"))
        with pytest.raises(NotFound):
            await gate.call(ContextRestore(name="talk"))
        kernel.check_invariants()


async def test_another_model_is_refused_unless_the_text_is_enough(tmp_path: Path) -> None:
    first = ScriptedEngine(model="one")
    async with open_kernel(Config(), Home(tmp_path), engines={"a": first}) as kernel:
        gate = kernel.init_gate()
        await gate.call(ContextSnapshot(context=await opened(gate), name="talk"))
    other = ScriptedEngine(model="two")
    async with open_kernel(Config(), Home(tmp_path), engines={"a": other}) as kernel:
        gate = kernel.init_gate()
        with pytest.raises(SnapshotIncompatible, match="here runs") as caught:
            await gate.call(ContextRestore(name="talk"))
        assert "--text" in caught.value.hint
        restored = (await gate.call(ContextRestore(name="talk", is_text_only=True))).value
        assert restored.n_messages == 1


async def test_names_are_those_of_the_owner(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        gate, eve = kernel.init_gate(), kernel.gate(kernel.admit("eve")[0].pid)
        context = await opened(gate)
        await gate.call(ContextSnapshot(context=context, name="talk"))
        with pytest.raises(AccessDenied):
            await eve.call(ContextSnapshot(context=context, name="stolen"))
        with pytest.raises(NotFound):
            await eve.call(ContextRestore(name="talk"))
        with pytest.raises(NotFound):
            await eve.call(ContextForget(name="talk"))
        assert (await eve.call(ContextSnapshots())).value.snapshots == ()


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "x" * 65])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(InvalidCall):
        build(ContextRestore, name=name)
