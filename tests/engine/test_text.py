"""The assembler against a reference that sees the whole text at once."""

import codecs
import copy
import itertools
import time

from hypothesis import example, given
from hypothesis import strategies as st

from aios.engine.text import TextAssembler

# A tiny alphabet makes overlaps between stop strings, and between a stop string and itself, likely.
STOPS = st.lists(st.text("abé€", min_size=0, max_size=5), max_size=4).map(tuple)
TEXTS = st.one_of(
    st.text("abé€😀", max_size=40).map(lambda text: text.encode()),
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"a", b"b", "é".encode(), b"\xf0\x9f", b"\x98\x80", b"\xff", b"\xe2\x82"])
    ).map(b"".join),
)


def reference(data: bytes, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text up to the stop string that ends first (the longest of those), and whether there is one."""
    text = codecs.utf_8_decode(data, "replace", False)[0]  # without a character that was cut
    ends = [(i + len(stop), i) for stop in stops if stop for i in [text.find(stop)] if i >= 0]
    return (text[: min(ends)[1]], True) if ends else (text, False)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


@given(data=TEXTS, cuts=st.lists(st.integers(0, 1000), max_size=12), stops=STOPS)
@example(data=b"aaab", cuts=[1, 2, 3], stops=("aab",))
@example(data=b"abcd", cuts=[1, 2, 3], stops=("abcd", "bc"))
@example(data=b"xabc", cuts=[2], stops=("bc", "abc"))
@example(data=b"\xe2\x82", cuts=[1], stops=("\ufffd",))
@example(data=b"\xff\xe2\x82", cuts=[1], stops=())
def test_any_split_gives_what_the_whole_text_gives(
    data: bytes, cuts: list[int], stops: tuple[str, ...]
) -> None:
    assembler = TextAssembler(stops)
    out = "".join(assembler.feed(piece) for piece in split(data, cuts)) + assembler.flush()
    assert (out, assembler.stopped) == reference(data, stops)


@given(data=TEXTS, cuts=st.lists(st.integers(0, 1000), max_size=12), stops=STOPS)
def test_exactly_what_may_begin_a_stop_string_is_held_back(
    data: bytes, cuts: list[int], stops: tuple[str, ...]
) -> None:
    assembler = TextAssembler(stops)
    fed, out = b"", ""
    for piece in split(data, cuts):
        fed += piece
        out += assembler.feed(piece)
        if not assembler.stopped:
            so_far = codecs.utf_8_decode(fed, "replace", False)[0]
            beginnings = {stop[:n] for stop in stops for n in range(len(stop))} | {""}
            n_held = max(len(part) for part in beginnings if so_far.endswith(part))
            assert out == so_far[: len(so_far) - n_held]


@given(data=TEXTS, cut=st.integers(0, 1000), stops=STOPS)
def test_a_copy_goes_on_from_the_same_place_and_leaves_the_original_alone(
    data: bytes, cut: int, stops: tuple[str, ...]
) -> None:
    head, tail = split(data, [cut])
    original = TextAssembler(stops)
    out = original.feed(head)
    other = copy.copy(original)
    first = out + other.feed(tail) + other.flush()
    second = out + original.feed(tail) + original.flush()
    assert first == second == reference(data, stops)[0]


def test_a_character_cut_in_three_comes_whole() -> None:
    assembler = TextAssembler()
    assert [assembler.feed(bytes([byte])) for byte in "€".encode()] == ["", "", "€"]


def test_a_character_that_never_ends_is_left_out() -> None:
    assembler = TextAssembler()
    assert assembler.feed(b"a\xf0\x9f\x98") == "a"
    assert assembler.flush() == ""


def test_text_is_not_delayed_when_it_cannot_begin_a_stop_string() -> None:
    assembler = TextAssembler(("\nUser:",))
    assert assembler.feed(b"Hello") == "Hello"
    assert assembler.feed(b"\nUs") == ""
    assert assembler.feed(b"ed") == "\nUsed"
    assert assembler.feed(b"\nUser: hi") == ""
    assert assembler.stopped
    assert assembler.feed(b"more") == ""
    assert assembler.flush() == ""


def test_empty_stop_strings_stop_nothing() -> None:
    assembler = TextAssembler(("", ""))
    assert assembler.feed(b"abc") + assembler.flush() == "abc"
    assert not assembler.stopped


def test_a_stop_string_that_repeats_itself_costs_linear_time() -> None:
    def seconds(n: int) -> float:
        best = float("inf")
        for _ in range(3):
            assembler = TextAssembler(("a" * 2000 + "b",))
            start = time.perf_counter()
            for _ in range(n):
                assembler.feed(b"a")
            best = min(best, time.perf_counter() - start)
        return best

    # Quadratic matching would take 16 times as long; the margin is for a noisy machine.
    assert seconds(16_000) < 10 * seconds(4_000)
