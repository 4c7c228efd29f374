"""The scripted engine's tokenizer."""

from hypothesis import given
from hypothesis import strategies as st

from aios.engine import pieces

TEXTS = st.text(max_size=200)


@given(TEXTS)
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(pieces.split(text)) == text
    assert list(pieces.iter_pieces(text)) == pieces.split(text)


@given(TEXTS)
def test_counts_agree_and_the_lower_bound_is_one(text: str) -> None:
    assert pieces.count(text) == len(pieces.split(text))
    assert pieces.at_least(text) <= pieces.count(text)


@given(TEXTS)
def test_ids_are_small_numbers_and_the_same_each_time(text: str) -> None:
    ids = [pieces.piece_id(piece) for piece in pieces.split(text)]
    assert ids == [pieces.piece_id(piece) for piece in pieces.split(text)]
    assert all(0 <= token < 2**29 for token in ids)


def test_words_marks_and_blanks_are_told_apart() -> None:
    assert pieces.split("Hello, big world!\n\nintercontinental") == [
        "Hello", ",", " big", " world", "!", "\n", "\n", "intercon", "tinental",
    ]  # fmt: skip
