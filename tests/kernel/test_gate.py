import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.call import Done
from aios.abi.calls import GetPid, Logs
from aios.abi.gate import Advance, Change, Line, Result, Token
from aios.abi.storage import FileVersion
from aios.abi.types import LogLine, Pid
from aios.errors import KernelStopping, NotFound
from aios.kernel import gate as gate_module
from aios.kernel.gate import FrameBuffer

pytestmark = pytest.mark.anyio


@given(st.lists(st.tuples(st.text(max_size=4), st.booleans()), max_size=30))
async def test_a_slow_reader_loses_no_text(pieces: list[tuple[str, bool]]) -> None:
    buffer: FrameBuffer[Done] = FrameBuffer()
    read: list[Token] = []
    for text, is_read in pieces:
        buffer.put(Token(text))
        if is_read:
            frame = await anext(buffer)
            assert isinstance(frame, Token)
            read.append(frame)
    buffer.finish(Result(Done()))
    read.extend([frame async for frame in buffer if isinstance(frame, Token)])
    assert "".join(frame.text for frame in read) == "".join(text for text, _ in pieces)
    assert sum(frame.n_tokens for frame in read) == len(pieces)


async def test_tokens_that_nobody_has_read_come_as_one_frame() -> None:
    buffer: FrameBuffer[Done] = FrameBuffer()
    for _ in range(1000):
        buffer.put(Token("x"))
    frame = await anext(buffer)
    assert isinstance(frame, Token)
    assert (frame.text, frame.n_tokens) == ("x" * 1000, 1000)


async def test_lines_that_nobody_reads_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate_module, "MAX_PENDING_LINES", 3)
    buffer: FrameBuffer[Done] = FrameBuffer()
    for number in range(10):
        buffer.put(Line(LogLine(Pid(1), 0.0, "out", str(number))))
    buffer.finish(Result(Done()))
    lines = [frame async for frame in buffer if isinstance(frame, Line)]
    assert [(line.line.text, line.n_missed) for line in lines] == [("7", 7), ("8", 0), ("9", 0)]


async def test_changes_are_dropped_as_lines_are_and_of_advances_the_newest_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate_module, "MAX_PENDING_LINES", 3)
    buffer: FrameBuffer[Done] = FrameBuffer()
    for number in range(10):
        buffer.put(Change(FileVersion("/shared/a", number, number, 1, Pid(1), "/", 0.0, "", 1)))
    buffer.finish(Result(Done()))
    read = [frame async for frame in buffer if isinstance(frame, Change)]
    assert [(each.version.version, each.n_missed) for each in read] == [(7, 7), (8, 0), (9, 0)]
    buffer = FrameBuffer()
    for number in range(5):
        buffer.put(Advance("blobs", number, 5))
    buffer.finish(Result(Done()))
    assert [frame async for frame in buffer] == [Advance("blobs", 4, 5)]


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
