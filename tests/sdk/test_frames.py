import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.gate import Advance, Change, Line, Progress, Token
from aios.abi.storage import FileVersion
from aios.abi.types import LogLine, Pid, ToolCall
from aios.sdk import frames as frames_module
from aios.sdk.frames import FrameQueue


def line(text: str) -> Line:
    return Line(LogLine(Pid(1), 0.0, "out", text))


def taken(queue: FrameQueue) -> list[Progress]:
    found = []
    while queue:
        frame = queue.take()
        assert frame is not None
        found.append(frame)
    assert queue.take() is None
    return found


@given(st.lists(st.tuples(st.text(max_size=3), st.booleans()), max_size=60))
def test_a_slow_reader_loses_no_token(pieces: list[tuple[str, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_module, "MAX_SEPARATE_FRAMES", 4)
        queue, read = FrameQueue(), list[Progress]()
        for text, is_read in pieces:
            call = ToolCall("1", text or "x", "{}")
            queue.put(Token(text, 2, (), (call,)))
            if is_read:
                frame = queue.take()
                assert frame is not None
                read.append(frame)
        read += taken(queue)
    tokens = [frame for frame in read if isinstance(frame, Token)]
    assert "".join(token.text for token in tokens) == "".join(text for text, _ in pieces)
    assert sum(token.n_tokens for token in tokens) == 2 * len(pieces)
    assert sum(len(token.tool_calls) for token in tokens) == len(pieces)


def test_tokens_stay_apart_for_a_reader_that_keeps_up() -> None:
    queue = FrameQueue()
    for text in "abc":
        queue.put(Token(text))
    assert taken(queue) == [Token("a"), Token("b"), Token("c")]


def test_many_waiting_tokens_take_a_bounded_number_of_frames() -> None:
    queue = FrameQueue()
    for _ in range(50_000):
        queue.put(Token("x"))
    read = taken(queue)
    assert len(read) == frames_module.MAX_SEPARATE_FRAMES + 1
    assert isinstance(read[-1], Token)
    assert len(read[-1].text) == 49_000


def test_old_lines_go_and_the_next_one_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "MAX_LINE_BYTES", 1_000)
    queue = FrameQueue()
    for number in range(10):
        queue.put(line(str(number)))
    read = taken(queue)
    assert [(frame.line.text, frame.n_missed) for frame in read if isinstance(frame, Line)] == [
        ("6", 6), ("7", 0), ("8", 0), ("9", 0),
    ]  # fmt: skip


def test_lines_that_are_read_in_time_are_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "MAX_LINE_BYTES", 1_000)
    queue, read = FrameQueue(), list[Progress]()
    for number in range(100):
        queue.put(line(str(number)))
        read += taken(queue)
    assert read == [line(str(number)) for number in range(100)]


def test_clearing_leaves_nothing() -> None:
    queue = FrameQueue()
    for _ in range(2_000):
        queue.put(Token("x"))
    queue.put(line("y"))
    queue.clear()
    assert not queue
    assert queue.take() is None


def change(number: int) -> Change:
    return Change(FileVersion("/shared/a", number, number, 1, Pid(1), "/", 0.0, "", 1))


def test_a_slow_reader_loses_the_oldest_changes_and_is_told_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames_module, "MAX_LINE_BYTES", 3 * 209)
    queue = FrameQueue()
    for number in range(10):
        queue.put(change(number))
    read = [frame for frame in taken(queue) if isinstance(frame, Change)]
    assert [(each.version.version, each.n_missed) for each in read] == [(7, 7), (8, 0), (9, 0)]


def test_of_advances_that_wait_the_newest_counts() -> None:
    queue = FrameQueue()
    queue.put(Token("a"))
    for number in range(5):
        queue.put(Advance("blobs", number, 5))
    assert taken(queue) == [Token("a"), Advance("blobs", 4, 5)]
