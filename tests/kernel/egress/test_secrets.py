import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import AccessDenied
from aios.kernel.egress.secrets import Mask, Secret, filled, names_in, placeholder

VALUE = "canary-77aa"


def test_placeholders_are_found_and_filled_in_values_of_headers_alone() -> None:
    headers = [("X-Key", f"a {placeholder('KEY')} b"), ("aios-secret:KEY", "x")]
    assert names_in(headers) == {"KEY"}
    assert filled(headers, {"KEY": VALUE}) == (("X-Key", f"a {VALUE} b"), ("aios-secret:KEY", "x"))
    with pytest.raises(AccessDenied):
        filled(headers, {})


def test_a_secret_shows_its_value_to_nobody_who_prints_it() -> None:
    assert VALUE not in f"{Secret(VALUE, ('a',))}{Secret(VALUE, ('a',))!r}{[Secret(VALUE, ('a',))]}"


@given(
    st.lists(st.sampled_from([b"x", b"canary", b"-77aa", b"-77a", VALUE.encode()])),
    st.integers(1, 9),
)
def test_no_way_of_cutting_lets_a_secret_through_or_changes_a_length(
    parts: list[bytes], size: int
) -> None:
    data, mask = b"".join(parts), Mask([VALUE])
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    told = b"".join(map(mask.feed, pieces)) + mask.finish()
    assert told == data.replace(VALUE.encode(), b"*" * len(VALUE))


@given(st.integers(1, 40))
def test_a_secret_that_begins_with_another_is_taken_out_whole(size: int) -> None:
    short, long = "canary-0123", "canary-0123-4567-89ab"
    said = f"a {long} b {short} c {short}{long}".encode()
    mask = Mask([short, long])
    pieces = [mask.feed(said[at : at + size]) for at in range(0, len(said), size)]
    answer = b"".join((*pieces, mask.finish()))
    assert answer == said.replace(long.encode(), b"*" * len(long)).replace(
        short.encode(), b"*" * len(short)
    )
