"""Traces as text: what was written is read again, what is malformed is refused with its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.trace import TracedAgent, TracedCall
from aios.errors import InvalidCall
from aios.kernel.scheduler.trace import decode_trace, encode_trace

seconds = st.floats(0, 1e6, allow_nan=False)
names = st.text('a"\n\u20ac', max_size=4)


@st.composite
def traced_calls(draw: st.DrawFn) -> TracedCall:
    n_prompt = draw(st.integers(0, 5000))
    return TracedCall(
        n_prompt,
        draw(st.integers(1, 5000)),
        draw(st.integers(0, n_prompt)),
        draw(seconds),
        draw(st.none() | st.floats(0.001, 1e6)),
    )


@st.composite
def traced_agents(draw: st.DrawFn) -> TracedAgent:
    calls = tuple(draw(st.lists(traced_calls(), max_size=4)))
    owner, kind = draw(names), draw(names)
    return TracedAgent(draw(seconds), calls, owner, draw(st.integers(-20, 19)), kind)


@given(st.lists(traced_agents(), max_size=5))
def test_what_was_written_is_read_again(agents: list[TracedAgent]) -> None:
    assert decode_trace(encode_trace(agents)) == tuple(agents)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "no json",
        '{"arrives_s": -1, "calls": []}',
        '{"arrives_s": 0, "calls": [{"prompt_tokens": 4, "output_tokens": 0}]}',
        '{"arrives_s": 0, "calls": [{"prompt_tokens": 4, "output_tokens": 1, "cached_tokens": 5}]}',
        '{"arrives_s": 0, "calls": [], "colour": "red"}',
    ],
)
def test_a_malformed_line_is_refused_with_its_number(line: str) -> None:
    good = '{"arrives_s": 0, "calls": []}\n\n'
    with pytest.raises(InvalidCall, match="line 3"):
        decode_trace((good + line).encode())
