from pathlib import Path

import anyio
import pytest
from tests.kernel.calls import chat

from aios.abi.calls import Chat
from aios.abi.types import Message, Role
from aios.config import Config, EngineConfig, Home
from aios.engine.machine import count_cores
from aios.errors import NotFound
from aios.kernel.engines import configured_cores, thread_warnings
from aios.kernel.kernel import open_kernel

SCRIPTED = EngineConfig(kind="scripted", model="made-up")


def test_engines_of_kind_none_are_left_out_and_local_comes_first(tmp_path: Path) -> None:
    config = Config(engine=SCRIPTED, engines={"a": SCRIPTED, "b": EngineConfig(kind="none")})
    assert [c.name for c in configured_cores(config, Home(tmp_path), None)] == ["local", "a"]
    config = Config(engine=EngineConfig(kind="none"), engines={"a": SCRIPTED})
    assert [c.name for c in configured_cores(config, Home(tmp_path), None)] == ["a"]


def test_two_embedded_engines_with_too_many_threads_are_warned_of() -> None:
    llama = EngineConfig(kind="llama")
    assert thread_warnings(Config(engine=llama)) == []
    [warning] = thread_warnings(Config(engine=llama, engines={"big": llama}))
    assert f"local, big have {2 * count_cores()} threads" in warning
    one = EngineConfig(kind="llama", n_threads=count_cores())
    assert thread_warnings(Config(engine=one, engines={"remote": SCRIPTED})) == []


@pytest.mark.anyio
async def test_a_kernel_runs_all_engines_of_its_configuration(tmp_path: Path) -> None:
    other = EngineConfig(kind="scripted", model="other", aliases=("tiny",))
    config = Config(engine=SCRIPTED, engines={"second": other})
    with anyio.fail_after(30):
        async with open_kernel(config, Home(tmp_path)) as kernel:
            gate = kernel.init_gate()
            for model, served_by in {"": "made-up", "tiny": "other", "second": "other"}.items():
                call = Chat(messages=(Message(Role.USER, "hi"),), model=model)
                assert (await gate.call(call)).value.model == served_by
            with pytest.raises(NotFound):
                await gate.call(Chat(messages=chat().messages, model="third"))
            assert [info.aliases for info in kernel.cores.infos()] == [(), ("tiny",)]
