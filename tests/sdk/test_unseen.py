from hypothesis import given
from hypothesis import strategies as st

from aios.sdk.unseen import Unseen

PIECES = st.lists(st.text("ab", max_size=3), max_size=6)


@given(PIECES, st.integers(0, 20))
def test_what_was_shown_is_not_shown_again(pieces: list[str], n_shown: int) -> None:
    whole = "".join(pieces)
    unseen = Unseen(whole[:n_shown])
    assert "".join(unseen.feed(piece) for piece in pieces) == whole[n_shown:]
    assert not unseen.is_new


@given(PIECES, st.text("ab", max_size=8))
def test_an_answer_that_turns_out_otherwise_is_shown_whole(pieces: list[str], shown: str) -> None:
    whole, unseen = "".join(pieces), Unseen(shown)
    told = "".join(unseen.feed(piece) for piece in pieces)
    differs = not (whole.startswith(shown) or shown.startswith(whole))
    assert unseen.is_new == differs
    assert told == (whole if differs else whole[len(shown) :])
