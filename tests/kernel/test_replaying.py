"""How long a call that the journal has not waits for the other tasks of its program."""

import anyio
import pytest
from tests.kernel.test_replay import row

from aios.abi.types import Kind, Pid
from aios.kernel import replaying
from aios.kernel.logs import LogBuffer
from aios.kernel.process import Process
from aios.kernel.replay import Replay

PATIENCE_S = 0.05


@pytest.mark.anyio
@pytest.mark.parametrize(("thought_s", "expected_s"), [(0.0, PATIENCE_S), (0.2, 0.4), (9.0, 0.6)])
async def test_a_program_that_thought_for_long_is_given_time_to_think_again(
    monkeypatch: pytest.MonkeyPatch, thought_s: float, expected_s: float
) -> None:
    monkeypatch.setattr(replaying, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(replaying, "MAX_PATIENCE_S", 0.6)
    process = Process(
        Pid(2), Pid(1), "shop", Kind.PROGRAM, "", frozenset(), LogBuffer(Pid(2), 1000)
    )
    process.replay = Replay([
        row(1, b"a", begun=1, ended=1 + thought_s + 5),
        row(2, b"b", begun=1 + thought_s, ended=1 + thought_s),
    ])  # fmt: skip
    run = process.begin("tool_take", max_calls=9)
    began = anyio.current_time()
    await replaying._wait_for_others(run, process.replay, None)
    assert 0.95 * expected_s <= anyio.current_time() - began < expected_s + 5


@pytest.mark.anyio
async def test_the_time_for_which_a_program_is_stopped_is_none_to_think(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replaying, "PATIENCE_S", PATIENCE_S)
    process = Process(
        Pid(2), Pid(1), "shop", Kind.PROGRAM, "", frozenset(), LogBuffer(Pid(2), 1000)
    )
    replay = Replay([row(1, b"a", begun=1, ended=5), row(2, b"b", begun=2, ended=3)])
    process.replay = replay
    run = process.begin("tool_take", max_calls=9)
    process.set_stopped(True)
    with anyio.move_on_after(4 * PATIENCE_S) as stopped:
        await replaying._wait_for_others(run, replay, None)
    assert stopped.cancelled_caught
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replaying._wait_for_others, run, replay, None)
            await anyio.sleep(4 * PATIENCE_S)
            process.set_stopped(False)
            began = anyio.current_time()
    assert anyio.current_time() - began >= 0.95 * PATIENCE_S, "it has the whole time again"
