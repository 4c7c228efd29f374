import os
import tracemalloc
from contextlib import AsyncExitStack

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.abi.call import Done
from aios.abi.calls import Log, Logs
from aios.abi.gate import Advance, Change, Line, Result, Token
from aios.abi.storage import FileWatch, Put
from aios.abi.types import LogLine, Pid
from aios.abi.wire import frame_to_json
from aios.kernel.frames import MAX_UNREAD_BYTES, FrameBuffer
from aios.kernel.kernel import Kernel
from aios.kernel.storage import tables
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


@given(st.lists(st.tuples(st.text(max_size=4), st.booleans()), max_size=30))
async def test_a_slow_reader_loses_no_text(pieces: list[tuple[str, bool]]) -> None:
    buffer: FrameBuffer[Done] = FrameBuffer()
    read: list[Token] = []
    for text, is_read in pieces:
        buffer(Token(text))
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
        buffer(Token("x"))
    frame = await anext(buffer)
    assert isinstance(frame, Token)
    assert (frame.text, frame.n_tokens) == ("x" * 1000, 1000)


async def test_of_advances_the_newest_counts() -> None:
    buffer: FrameBuffer[Done] = FrameBuffer()
    for number in range(5):
        buffer(Advance("blobs", number, 5))
    buffer.finish(Result(Done()))
    assert [frame async for frame in buffer] == [Advance("blobs", 4, 5)]


async def put_many(kernel: Kernel, *, n_files: int) -> list[str]:
    """Files with the longest names, from the change 1 on."""
    folder = "/shared/" + "/".join("n" * 250 for _ in range(13))
    paths = [f"{folder}/{number}" for number in range(n_files)]
    files = Files(kernel.init_gate())
    for first in range(0, n_files, 500):
        await files.edit([Put(path, os.urandom(4)) for path in paths[first : first + 500]])
    return paths


async def test_changes_that_nobody_reads_take_little_memory_and_none_is_missed(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(60):
        async with booted() as kernel:
            paths = await put_many(kernel, n_files=600)
            tracemalloc.start()
            try:
                async with kernel.init_gate().open_call(
                    FileWatch(path="/shared", since=0, follow=True)
                ) as frames:
                    while not frames.is_full:  # a thread may look for them still
                        await anyio.sleep(0.01)
                    await anyio.wait_all_tasks_blocked()
                    rows = tracemalloc.take_snapshot().filter_traces(
                        [tracemalloc.Filter(inclusive=True, filename_pattern=tables.__file__)]
                    )
                    n_bytes = sum(each.size for each in rows.statistics("filename"))
                    assert 0 < n_bytes < 2 * MAX_UNREAD_BYTES
                    seen: list[str] = []
                    while len(seen) < len(paths):
                        frame = await anext(frames)
                        if isinstance(frame, Change):
                            assert frame.n_missed == 0
                            seen.append(frame.version.path)
            finally:
                tracemalloc.stop()
            assert seen == paths


async def test_a_log_waits_for_its_reader_and_what_it_wrote_meanwhile_is_counted(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(60):
        async with booted() as kernel:
            gate, n_lines = kernel.init_gate(), 400
            async with gate.open_call(Logs(pid=gate.pid, follow=True, tail=0)) as frames:
                await anyio.wait_all_tasks_blocked()
                for number in range(n_lines):
                    await gate.call(Log(f"{number} " + "x" * 16_000))
                await anyio.wait_all_tasks_blocked()
                assert frames._unread_bytes < 2 * MAX_UNREAD_BYTES
                n_seen, texts = 0, list[str]()
                while n_seen < n_lines:
                    frame = await anext(frames)
                    assert isinstance(frame, Line)
                    n_seen += 1 + frame.n_missed
                    texts.append(frame.line.text)
                assert texts[-1].startswith(f"{n_lines - 1} ")


async def test_who_waits_for_a_slow_reader_is_parked_and_ends_for_one_who_wants_only_the_end(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(60):
        async with booted() as kernel:
            gate = kernel.init_gate()
            for number in range(40):
                await gate.call(Log(f"{number} " + "x" * 16_000))
            async with gate.open_call(Logs(pid=gate.pid)) as frames:
                await anyio.wait_all_tasks_blocked()
                (run,) = kernel.init.runs.values()
                assert run.is_parked
                assert (await frames.result()).value.n_lines == 40


async def test_a_line_weighs_the_same_when_it_is_read() -> None:
    buffer: FrameBuffer[Done] = FrameBuffer()
    for number in range(10):
        line = Line(LogLine(Pid(1), 0.0, "log", "\u00e9" * (10_000 + number)))
        buffer(line)
        frame_to_json(
            line
        )  # as for another who follows, and for the file: the text keeps its UTF-8 then
        await anext(buffer)
    assert buffer._unread_bytes == 0


async def test_a_log_that_is_written_as_fast_as_it_is_read_ends_if_it_is_not_followed(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(60):
        async with booted() as kernel:
            gate = kernel.init_gate()
            for number in range(3):
                await gate.call(Log(f"{number} " + "\n" * 20_000))
            n_seen = 0
            async with gate.open_call(Logs(pid=gate.pid)) as frames:
                async for _ in frames:
                    n_seen += 1
                    if n_seen % 100 == 0:
                        await gate.call(Log("\n" * 20_000))
            assert n_seen < 20_000


async def test_a_log_that_nobody_reads_is_kept_by_none_of_the_calls_that_follow_it(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(60):
        async with booted() as kernel, AsyncExitStack() as held:
            gate = kernel.init_gate()
            tracemalloc.start()
            try:
                for _ in range(8):
                    for _ in range(17):
                        await gate.call(Log("\U0001d11e" * 65_536))
                    await held.enter_async_context(gate.open_call(Logs(pid=gate.pid, follow=True)))
                    await anyio.wait_all_tasks_blocked()
                n_bytes, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert n_bytes < 24 << 20, "each would keep a log of its own, of 4 MiB"
