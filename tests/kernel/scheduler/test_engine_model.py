"""The model of an engine keeps to the rates it was given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.scheduler.engine_model import BackOff, EngineModel


@pytest.mark.parametrize(
    ("n_sequences", "rate"), [(1, 128.0), (4, 197.0), (6, 210.5), (16, 231.0), (99, 231.0)]
)
def test_between_measured_rates_are_straight_lines(n_sequences: int, rate: float) -> None:
    assert EngineModel().decode_rate(n_sequences) == rate


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_pauses_grow_to_a_limit(ticket_id: int, n_refusals: int) -> None:
    back_off = BackOff()
    delay_s = back_off.delay_s(ticket_id, n_refusals)
    assert back_off.first_s / 2 <= delay_s < back_off.longest_s * 1.5
