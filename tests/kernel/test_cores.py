import anyio
import pytest
from tests.kernel.calls import chat
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import Chat
from aios.abi.types import Message, Role
from aios.engine.base import Engine
from aios.engine.scripted import ScriptedEngine
from aios.errors import EngineUnavailable, NotFound
from aios.kernel.cores import Core

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("model", ["", "default", "engine0", "scripted"])
async def test_a_model_is_found_by_default_by_engine_and_by_model_name(
    booted: OpenKernel, model: str
) -> None:
    call = Chat(messages=(Message(Role.USER, "hi"),), model=model)
    async with booted(ScriptedEngine()) as kernel:
        assert (await kernel.init_gate().call(call)).value.model == "scripted"


async def test_an_unknown_model_is_named_together_with_the_known_ones(booted: OpenKernel) -> None:
    call = Chat(messages=(Message(Role.USER, "hi"),), model="gpt-9")
    async with booted(ScriptedEngine()) as kernel:
        await kernel.init_gate().call(chat())
        with pytest.raises(NotFound, match="gpt-9") as caught:
            await kernel.init_gate().call(call)
        assert "scripted" in caught.value.hint


async def test_a_kernel_without_an_engine_says_so(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with pytest.raises(EngineUnavailable, match="no engine"):
            await kernel.init_gate().call(chat())


async def test_calls_wait_while_an_engine_loads_and_learn_why_it_failed(booted: OpenKernel) -> None:
    loaded = anyio.Event()

    async def make() -> Engine:
        await loaded.wait()
        raise EngineUnavailable("no weights", hint="aios pull")

    with anyio.fail_after(5):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            core = Core("slow", "llama", make)
            kernel.cores.add(core)
            tasks.start_soon(kernel.cores.start, core)
            failures: list[str] = []

            async def ask() -> None:
                with pytest.raises(EngineUnavailable) as caught:
                    await kernel.init_gate().call(chat())
                failures.append(caught.value.hint)

            for _ in range(2):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert kernel.cores.infos()[0].note == "loading"
            loaded.set()
        assert failures == ["aios pull", "aios pull"]
        assert kernel.cores.infos()[0].note == "no weights; aios pull"
