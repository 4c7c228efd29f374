"""From events to deltas."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Finish
from aios.engine.base import Delta
from aios.engine.remote.chunks import MAX_COUNT, ChunkReader
from aios.errors import EngineFailed


def chunk(**fields: object) -> str:
    return json.dumps(fields)


def text(content: str, reason: str | None = None) -> str:
    return chunk(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": reason}])


def calls(*parts: dict[str, object]) -> str:
    return chunk(choices=[{"index": 0, "delta": {"tool_calls": list(parts)}}])


def last(*events: str, reader: ChunkReader | None = None) -> Delta:
    reader = reader or ChunkReader()
    for event in (*events, "[DONE]"):
        reader.feed(event)
    delta = reader.take()
    assert delta is not None
    return delta


@given(st.lists(st.text(max_size=5), max_size=8), st.sets(st.integers(0, 8)), st.integers(0, 30))
def test_text_and_counts_add_up_whenever_it_is_taken(
    pieces: list[str], takes: set[int], n_told: int
) -> None:
    reader = ChunkReader()
    deltas: list[Delta] = []
    for i, piece in enumerate(pieces):
        reader.feed(text(piece))
        if i in takes and (delta := reader.take()) is not None:
            deltas.append(delta)
    reader.feed(text("", "stop"))
    reader.feed(chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": n_told}))
    reader.feed("[DONE]")
    final = reader.take()
    assert final is not None
    assert final.usage is not None
    assert all(delta.finish is None and delta.usage is None for delta in deltas)
    assert "".join(delta.text for delta in [*deltas, final]) == "".join(pieces)
    n_counted = sum(delta.n_tokens for delta in [*deltas, final])
    assert n_counted == max(n_told, sum(1 for piece in pieces if piece))
    assert final.usage.completion_tokens == n_told


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", Finish.STOP),
        ("length", Finish.LENGTH),
        ("content_filter", Finish.CONTENT_FILTER),
        ("tool_calls", Finish.TOOL_CALLS),
        ("eos", Finish.STOP),
    ],
)
def test_reasons_have_our_names(reason: str, finish: Finish) -> None:
    assert last(text("a", reason)).finish is finish


def test_counts_that_come_with_each_chunk_are_believed() -> None:
    reader = ChunkReader()
    for n, piece in ((1, "a"), (4, "b")):
        usage = {"prompt_tokens": 9, "completion_tokens": n}
        reader.feed(chunk(choices=[{"index": 0, "delta": {"content": piece}}], usage=usage))
        assert reader.n_prompt == 9
        delta = reader.take()
        assert delta is not None
        assert delta.n_tokens == {1: 1, 4: 3}[n]


def test_a_resumed_generation_counts_what_came_before() -> None:
    told = chunk(choices=[], usage={"prompt_tokens": 15, "completion_tokens": 2})
    usage = last(text("c"), text("d", "stop"), told, reader=ChunkReader(n_before=5)).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (10, 7)
    usage = last(text("c"), told, reader=ChunkReader(n_before=5, n_prompt_before=11)).usage
    assert usage is not None
    assert usage.prompt_tokens == 11


def test_thinking_costs_tokens_but_is_not_text() -> None:
    delta = last(
        chunk(choices=[{"index": 0, "delta": {"reasoning_content": "hmm"}}]), text("yes", "stop")
    )
    assert (delta.text, delta.n_tokens) == ("yes", 2)


def test_a_refusal_is_text() -> None:
    assert (
        last(
            chunk(choices=[{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}])
        ).text
        == "No."
    )


def test_other_choices_and_unknown_fields_are_ignored() -> None:
    delta = last(
        chunk(choices=[{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes", "x": 1}}], y=2),
        chunk(choices=None, usage=None),
        chunk(),
    )  # fmt: skip
    assert delta.text == "yes"


# --- tool calls ------------------------------------------------------------------------------------------------------


def test_calls_without_numbers_are_told_apart_by_their_ids() -> None:
    delta = last(
        calls({"id": "a", "function": {"name": "f", "arguments": '{"x":'}}),
        calls({"function": {"arguments": "1}"}}),
        calls({"id": "b", "function": {"name": "g", "arguments": {"y": 2}}}),
    )
    assert [(call.id, call.name, call.arguments) for call in delta.tool_calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", '{"y":2}'),
    ]
    assert delta.finish is Finish.TOOL_CALLS


def test_a_call_without_id_or_arguments_gets_some() -> None:
    (call,) = last(calls({"index": 0, "function": {"name": "f"}})).tool_calls
    assert (call.id, call.arguments) == ("call_0", "{}")


def test_a_call_that_was_cut_off_is_not_handed_out() -> None:
    half = calls(
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"y": '}},
    )
    delta = last(half, text("", "length"))
    assert [call.id for call in delta.tool_calls] == ["a"]
    assert delta.finish is Finish.LENGTH


# --- log-probabilities -----------------------------------------------------------------------------------------------


def test_rows_of_chats_are_read() -> None:
    top = [
        {"token": "a", "logprob": -0.1, "bytes": [97]},
        {"token": "�", "logprob": -3, "bytes": [240]},
    ]
    row = {"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": top}
    delta = last(
        chunk(choices=[{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [row]}}])
    )
    (found,) = delta.logprobs
    assert (found.token, found.token_bytes) == ("a", b"a")
    assert [other.token_bytes for other in found.top] == [b"a", b"\xf0"]


def test_rows_of_texts_are_read() -> None:
    told = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -2.5],
        "top_logprobs": [None, {"b": -2.5, "c": -3}],
    }
    delta = last(chunk(choices=[{"index": 0, "text": "ab", "logprobs": told}]))
    assert delta.n_tokens == 2
    assert [row.logprob for row in delta.logprobs] == [0, -2.5]
    assert [other.token for other in delta.logprobs[1].top] == ["b", "c"]


# --- nonsense --------------------------------------------------------------------------------------------------------


@given(st.text(max_size=30))
def test_any_event_is_taken_or_refused(event: str) -> None:
    try:
        ChunkReader().feed(event)
    except EngineFailed as error:
        refused = error.message
    else:
        refused = ""
    assert not refused or "malformed" in refused


@pytest.mark.parametrize(
    "event", ["", "{", "[]", '{"choices": [{"delta": 7}]}', '{"choices": [{"index": "x"}]}', "NaN"]
)
def test_malformed_chunks_are_refused(event: str) -> None:
    with pytest.raises(EngineFailed, match="malformed"):
        ChunkReader().feed(event)


def test_an_error_in_the_stream_is_kept() -> None:
    reader = ChunkReader()
    reader.feed(chunk(error={"message": "out of memory", "code": 503}))
    assert reader.problem is not None
    assert (reader.problem.status, reader.problem.message) == (503, "out of memory")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["One, two, three", ", four"], "three, four"),
        (["three", ", four"], "three, four"),
        (["One, ", "two, "], "One, two, "),
        (["One, two, ", "One, two, "], "One, two, "),
    ],
)
def test_an_echo_of_what_it_goes_on_from_is_left_out_once(pieces: list[str], expected: str) -> None:
    reader = ChunkReader(n_before=4, echo="One, two, ")
    told = {"prompt_tokens": 20, "completion_tokens": 2}
    delta = last(
        *map(text, pieces), text("", "length"), chunk(choices=[], usage=told), reader=reader
    )
    assert delta.text == expected
    assert delta.usage is not None
    assert (delta.usage.prompt_tokens, delta.usage.completion_tokens) == (16, 6)


@pytest.mark.parametrize("told", [10**30, -(10**30)])
def test_no_count_of_an_endpoint_is_more_than_there_can_be(told: int) -> None:
    usage = {
        "prompt_tokens": told,
        "completion_tokens": told,
        "prompt_tokens_details": {"cached_tokens": told},
    }
    timings = {"cache_n": float(told), "prompt_n": float(told), "predicted_n": float(told)}
    for fields in ({"usage": usage}, {"timings": timings}):
        delta = last(text("a"), chunk(choices=[], **fields), text("", "stop"), chunk(**fields))
        assert delta.usage is not None
        assert 0 <= delta.usage.prompt_tokens <= 2 * MAX_COUNT
        assert 0 <= delta.usage.completion_tokens <= MAX_COUNT
        assert 0 <= delta.usage.cached_tokens <= delta.usage.prompt_tokens
        assert 0 <= delta.n_tokens <= MAX_COUNT
