"""Server-sent events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.engine.remote.sse import SseParser
from aios.errors import EngineFailed

LINES = st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20)
EVENTS = st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5)
BREAKS = st.sampled_from(["\n", "\r\n", "\r"])


def parse(stream: bytes, cuts: list[int]) -> list[str]:
    """The events of a stream that comes in pieces."""
    parser = SseParser()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [event for a, b in pairwise(edges) for event in parser.feed(stream[a:b])]
    return found + parser.flush()


@given(EVENTS, BREAKS, st.lists(st.integers(0, 300)), st.booleans())
def test_events_come_out_as_they_went_in_however_they_are_cut(
    events: list[list[str]], line_break: str, cuts: list[int], is_ended: bool
) -> None:
    parts = [
        f": ping{line_break}"
        + "".join(f"data: {line}{line_break}" for line in lines)
        + f"id: 7{line_break}"
        for lines in events
    ]
    stream = (line_break.join(parts) + (line_break if is_ended else "")).encode()
    assert parse(stream, cuts) == ["\n".join(lines) for lines in events]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
        (b"event: x\ndata: a\nretry: 5\n\n", ["a"]),
        (b"data\n\n", [""]),
        (b"data: a", ["a"]),
        (b"\n\n: only comments\n\n", []),
        (b"database: no\nxdata: no\n\n", []),
    ],
)
def test_the_standard_is_followed(stream: bytes, events: list[str]) -> None:
    assert parse(stream, []) == events
    assert parse(stream, list(range(len(stream)))) == events


def test_comments_are_a_sign_of_life() -> None:
    parser = SseParser()
    parser.feed(b": still here")
    assert parser.n_lines == 0
    parser.feed(b"\n")
    assert parser.n_lines == 1


def test_a_line_without_end_is_refused_as_soon_as_it_is_too_long() -> None:
    parser = SseParser(max_line_bytes=1000)
    parser.feed(b"data: " + b"x" * 900)
    with pytest.raises(EngineFailed, match="line"):
        parser.feed(b"x" * 200)


def test_an_event_without_end_is_refused_as_soon_as_it_is_too_long() -> None:
    parser = SseParser(max_event_bytes=1000)
    with pytest.raises(EngineFailed, match="event"):
        parser.feed(b"data: 0123456789\n" * 100)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(EngineFailed, match="UTF-8"):
        SseParser().feed(b"data: \xff\n\n")
