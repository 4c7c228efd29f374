"""What a packet takes in memory is told before any of it is read."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi import wire
from aios.abi.wire import LARGE_BYTES, MAX_VALUES, STEP_VALUES, VALUE_BYTES, weighing
from aios.errors import InvalidCall

PADDING = b"\xc1" * LARGE_BYTES
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=300) | st.binary(max_size=300)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=300)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)  # fmt: skip


def weight_of(body: bytes) -> int:
    *_, weight = weighing(body)
    return weight


def n_values(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(n_values, value))
    if isinstance(value, dict):
        return 1 + sum(1 + n_values(inner) for inner in value.values())
    return 1


@given(VALUES)
def test_each_value_weighs_whatever_it_is(value: object) -> None:
    padded = [value, PADDING]
    body = msgspec.msgpack.encode(padded)
    assert weight_of(body) == len(body) + VALUE_BYTES * n_values(padded)


@pytest.mark.parametrize("size", [1, 255, 256, 65_535, 65_536])
def test_values_of_every_length_are_passed_over_whole(size: int) -> None:
    ext = msgspec.msgpack.Ext(7, b"x" * size)
    padded = ["x" * size, b"x" * size, ext, [None] * size, dict.fromkeys(range(size)), PADDING]
    body = msgspec.msgpack.encode(padded)
    assert weight_of(body) == len(body) + VALUE_BYTES * (6 + size + 2 * size + 1)


def test_many_values_are_weighed_in_small_steps_and_a_long_text_in_one() -> None:
    assert len(list(weighing(b"\x90" * MAX_VALUES))) == MAX_VALUES // STEP_VALUES + 1
    body = msgspec.msgpack.encode("[],{}" * 1_000_000)
    assert weight_of(body) == len(body) + VALUE_BYTES


@pytest.mark.parametrize("first", [b"\x90", b"\x00", b"\xc0", b"\x81\xa0\x80", b"\xa2ab"])
def test_too_many_values_are_refused_before_they_are_made(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_VALUES", LARGE_BYTES)
    body = b"\xdd\x7f\xff\xff\xff" + first * (LARGE_BYTES + 1)
    with pytest.raises(InvalidCall, match="over 16,384 values"):
        weight_of(body)


@given(st.binary(max_size=400))
def test_no_bytes_at_all_are_too_strange_to_weigh(noise: bytes) -> None:
    assert weight_of(noise + PADDING + b"x") > LARGE_BYTES


def test_the_estimate_is_not_below_what_python_takes() -> None:
    values: list[object] = [
        [[]] * 9,
        [{"": 0}] * 9,
        ["ab"] * 9,
        {str(n): n for n in range(300, 330)},
    ]
    for value in values:
        body = msgspec.msgpack.encode([value] * 1_000)
        tracemalloc.start()
        made = msgspec.msgpack.decode(body)
        n_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert made
        assert n_bytes <= weight_of(body)
