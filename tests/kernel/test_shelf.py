import errno
import os
import signal
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from tests.kernel.conftest import NOBODY

from aios.abi.call import Answer, Call
from aios.abi.calls import Chat
from aios.abi.contexts import (
    ContextAppend,
    ContextForget,
    ContextId,
    ContextOpen,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextSnapshots,
    WindowPolicy,
)
from aios.abi.pages import Pages
from aios.abi.types import Kind, Message, Role, Sampling, ToolSpec
from aios.bench.children import Daemon, daemon, scratch_folder
from aios.config import Config, Home
from aios.configload import load
from aios.engine.models import find_model
from aios.engine.scripted import ScriptedEngine
from aios.errors import (
    AccessDenied,
    Conflict,
    DiskFailed,
    InvalidCall,
    NotFound,
    SnapshotIncompatible,
)
from aios.kernel.cores import Core
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel
from aios.kernel.taint import mark
from aios.sdk.requests import build
from aios.sdk.socket import UnixGate

pytestmark = pytest.mark.anyio

A = TypeVar("A", bound=Answer)
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
        assert (await gate.call(ContextSnapshot(context=context, name="talk"))).value == info
        other = await opened(gate)
        with pytest.raises(Conflict):
            await gate.call(ContextSnapshot(context=other, name="talk"))
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


async def test_a_snapshot_that_waits_for_an_engine_has_the_mark_of_what_came_meanwhile(
    tmp_path: Path,
) -> None:
    may_start, taints = anyio.Event(), list[str]()

    async def make() -> ScriptedEngine:
        await may_start.wait()
        return ScriptedEngine()

    config = Config(approvals=NOBODY)
    with anyio.fail_after(30):
        async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
            ann = kernel.add_process("ann", Kind.TASK, kernel.init)
            gate = kernel.gate(ann.pid)
            context = await opened(gate)
            kernel.add_engine(Core("slow", "scripted", make))

            async def snapshot() -> None:
                info = (await gate.call(ContextSnapshot(context=context, name="talk"))).value
                taints.append(info.taint)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(snapshot)
                while not any(run.is_parked for run in ann.runs.values()):
                    await anyio.sleep(0.001)
                mark(ann, "tool web")
                told = Message(Role.USER, "from outside")
                await gate.call(ContextAppend(context=context, messages=(told,)))
                may_start.set()
    assert taints == ["tool web"]


async def test_a_snapshot_that_the_disk_does_not_give_up_keeps_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpinned = list[str]()
    async with open_kernel(Config(), Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        gate = kernel.init_gate()
        await gate.call(ContextSnapshot(context=await opened(gate), name="talk"))
        monkeypatch.setattr(kernel.contexts, "unpin", unpinned.append)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refuse)
            with pytest.raises(DiskFailed, match="cannot be removed: Read-only"):
                await gate.call(ContextForget(name="talk"))
        assert not unpinned
        await gate.call(ContextForget(name="talk"))
        assert len(unpinned) == 1


def refuse(_: Path) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


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
        assert "`is_text_only`" in caught.value.hint
        restored = (await gate.call(ContextRestore(name="talk", is_text_only=True))).value
        assert restored.n_messages == 1


async def test_names_are_those_of_the_owner(tmp_path: Path) -> None:
    config = Config(approvals=NOBODY)
    async with open_kernel(config, Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        gate, eve = kernel.init_gate(), kernel.gate(kernel.admit("eve")[0].pid)
        context = await opened(gate)
        await gate.call(ContextSnapshot(context=context, name="talk"))
        with pytest.raises(AccessDenied):
            await eve.call(ContextSnapshot(context=context, name="stolen"))
        with pytest.raises(NotFound):
            await eve.call(ContextRestore(name="talk"))
        with pytest.raises(NotFound):  # nobody is asked about what is not hers
            await eve.call(ContextForget(name="talk"))
        assert len((await gate.call(ContextSnapshots())).value.snapshots) == 1
        assert (await eve.call(ContextSnapshots())).value.snapshots == ()


async def test_a_kernel_that_was_killed_leaves_no_draft_of_a_snapshot(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        gate = kernel.init_gate()
        await gate.call(ContextSnapshot(context=await opened(gate), name="talk"))
    [path] = Home(tmp_path).contexts.rglob("*.context")
    draft = path.with_name(".talk.0123456789abcdef.new")
    draft.write_bytes(b"half")
    async with open_kernel(Config(), Home(tmp_path), engines={"a": ScriptedEngine()}) as kernel:
        assert not draft.exists()
        assert (await kernel.init_gate().call(ContextRestore(name="talk"))).value.n_messages == 1


async def _call(gate: UnixGate, call: Call[A]) -> A:
    return (await gate.call(call)).value


def _kill(served: Daemon) -> None:
    os.killpg(served.child.process.pid, signal.SIGKILL)


@pytest.mark.model
async def test_after_a_kill_the_prompt_of_a_snapshot_is_found_in_its_pages() -> None:
    knobs = {"AIOS_ENGINE_KIND": "llama", "AIOS_ENGINE_WINDOW_TOKENS": "512"}
    knobs["AIOS_ENGINE_MODEL"] = str(find_model("", load().home))
    greedy = Sampling(temperature=0, seed=1)
    text = "Please write about a lighthouse and its keeper. " * 12
    with anyio.fail_after(120), scratch_folder() as folder:
        async with daemon(folder, knobs) as served:
            async with UnixGate.connect(served.socket, served.token) as gate:
                context = (await _call(gate, ContextOpen())).id
                first = Chat(
                    context=context,
                    messages=(Message(Role.USER, text),),
                    sampling=greedy,
                    max_tokens=24,
                )
                spent = (await _call(gate, first)).usage
                await _call(gate, ContextSnapshot(context=context, name="talk"))
            _kill(served)
        home = served.home
        async with (
            daemon(folder, knobs, home=home) as served,
            UnixGate.connect(served.socket, served.token) as gate,
        ):
            restored = (await _call(gate, ContextRestore(name="talk"))).id
            [store] = (await _call(gate, Pages())).stores
            assert (store.n_pins, store.n_resident) == (1, 0), "only the disk has them"
            again = Chat(context=restored, messages=(USER,), sampling=greedy, max_tokens=2)
            usage = (await _call(gate, again)).usage
            n_held = spent.prompt_tokens + spent.completion_tokens - 1
            assert usage.cached_tokens == n_held >= 128, "nothing was computed again"
            await _call(gate, ContextForget(name="talk"))
            [store] = (await _call(gate, Pages())).stores
            assert store.n_pins == 0


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "x" * 65])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(InvalidCall):
        build(ContextRestore, name=name)
