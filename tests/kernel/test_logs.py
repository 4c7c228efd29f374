import anyio
import pytest

from aios.abi.types import Pid
from aios.kernel.logs import LINE_OVERHEAD_BYTES, MAX_LINE_CHARS, LogBuffer


def buffer(max_bytes: int = 1 << 20) -> LogBuffer:
    return LogBuffer(Pid(3), max_bytes)


def write(log: LogBuffer, text: str) -> None:
    log.write(text, stream="out", unix_s=1.0)


def test_each_line_of_a_text_is_a_line_of_the_log() -> None:
    log = buffer()
    write(log, "one\ntwo\r\nthree")
    lines, end, n_missed = log.read(0)
    assert [line.text for line in lines] == ["one", "two", "three"]
    assert (end, n_missed) == (3, 0)


def test_an_empty_text_is_an_empty_line() -> None:
    log = buffer()
    write(log, "")
    assert [line.text for line in log.read(0)[0]] == [""]


def test_the_oldest_lines_are_dropped_and_counted_when_the_log_is_full() -> None:
    log = buffer(max_bytes=3 * (LINE_OVERHEAD_BYTES + 1))
    write(log, "a\nb\nc\nd\ne")
    lines, end, n_missed = log.read(0)
    assert [line.text for line in lines] == ["c", "d", "e"]
    assert (end, n_missed) == (5, 2)
    assert log.size_bytes <= log.max_bytes


def test_a_reader_goes_on_where_it_was() -> None:
    log = buffer()
    write(log, "a\nb")
    _, number, _ = log.read(0)
    write(log, "c")
    assert [line.text for line in log.read(number)[0]] == ["c"]


def test_tail_starts_at_the_last_lines() -> None:
    log = buffer()
    write(log, "a\nb\nc")
    assert [line.text for line in log.read(log.tail(2))[0]] == ["b", "c"]
    assert log.tail(None) == 0
    assert log.tail(99) == 0


def test_a_very_long_line_is_cut_into_several() -> None:
    log = buffer()
    write(log, "x" * (MAX_LINE_CHARS + 5))
    assert [len(line.text) for line in log.read(0)[0]] == [MAX_LINE_CHARS, 5]


@pytest.mark.anyio
async def test_a_follower_is_woken_by_a_line_and_by_the_end() -> None:
    log = buffer()
    woken: list[bool] = []

    async def follow() -> None:
        await log.wait_changed()
        woken.append(log.is_closed)
        await log.wait_changed()
        woken.append(log.is_closed)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            write(log, "a")
            await anyio.wait_all_tasks_blocked()
            log.close()
    assert woken == [False, True]
