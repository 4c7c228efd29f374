"""Finding tool calls in streamed text of every form, and leaving alone what is none."""

import copy
import itertools
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aios.abi.types import Message, Role, ToolCall, ToolSpec
from aios.engine.base import ChatPrompt
from aios.engine.llama.template import ToolMode
from aios.engine.llama.toolcalls import ToolParser

TOOLS = (ToolSpec("f"), ToolSpec("get_weather"))
CALLING = [ToolMode.FALLBACK, ToolMode.HERMES, ToolMode.LLAMA3, ToolMode.MISTRAL]
HERMES, LLAMA3, MISTRAL = ToolMode.HERMES, ToolMode.LLAMA3, ToolMode.MISTRAL


def parse(mode: ToolMode, *chunks: str) -> tuple[str, list[tuple[str, str]]]:
    """All the text that is shown, and names and arguments of the calls."""
    parser = ToolParser(TOOLS, mode, seed=1)
    results = [parser.feed(chunk) for chunk in chunks]
    results.append(parser.flush())
    calls = [call for _, found in results for call in found]
    return "".join(text for text, _ in results), [(call.name, call.arguments) for call in calls]


CALL = '{"name": "f", "arguments": {"a": 1}}'


@pytest.mark.parametrize(
    ("mode", "text", "shown", "calls"),
    [
        (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", "", [("f", '{"a": 1}')]),
        (HERMES, f"<tool_call>{CALL}</tool_call>", "", [("f", '{"a": 1}')]),
        (HERMES, f"\n <tool_call>{CALL}", "", [("f", '{"a": 1}')]),
        (HERMES, f"Wait.\n<tool_call>{CALL}</tool_call>\n\n", "Wait.\n", [("f", '{"a": 1}')]),
        (HERMES, f"<tool_call>{CALL}</tool_call> Done.", "Done.", [("f", '{"a": 1}')]),
        (HERMES, f"<tool_call>[{CALL}, {CALL}]</tool_call>", "", [("f", '{"a": 1}')] * 2),
        (HERMES, f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", "", [("f", '{"a": 1}')] * 2),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"t": "}</tool_call>\\""}}</tool_call>', "", [("f", '{"t": "}</tool_call>\\""}')]),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"t": "a\nb"}}</tool_call>', "", [("f", '{"t": "a\\nb"}')]),
        (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
        (HERMES, '<tool_call>{"name": "f", "arguments": null}</tool_call>', "", [("f", "{}")]),
        (HERMES, '<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
        (HERMES, '<tool_call>{"type": "function", "function": {"name": "f", "arguments": {}}}', "", [("f", "{}")]),
        (HERMES, CALL, "", [("f", '{"a": 1}')]),
        (ToolMode.FALLBACK, f"<tool_call>\n{CALL}\n</tool_call>", "", [("f", '{"a": 1}')]),
        (LLAMA3, '{"name": "f", "parameters": {"a": 1}}', "", [("f", '{"a": 1}')]),
        (LLAMA3, '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}', "", [("f", "{}")]),
        (LLAMA3, '{"function": "f", "parameters": {}}', "", [("f", "{}")]),
        (LLAMA3, '{"name": "f", "parameters": {}}; {"name": "get_weather", "parameters": {}}', "", [("f", "{}"), ("get_weather", "{}")]),
        (MISTRAL, f"[TOOL_CALLS][{CALL}, {CALL}]", "", [("f", '{"a": 1}')] * 2),
        (MISTRAL, f"[TOOL_CALLS] [{CALL}]", "", [("f", '{"a": 1}')]),
    ],
)  # fmt: skip
def test_the_usual_forms_are_calls(
    mode: ToolMode, text: str, shown: str, calls: list[tuple[str, str]]
) -> None:
    assert parse(mode, text) == (shown, calls)
    assert parse(mode, *text) == (shown, calls)


@pytest.mark.parametrize("mode", CALLING)
@pytest.mark.parametrize(
    "text",
    [
        "Just words, < and [TOOL and { too.",
        "<tool_call>no json</tool_call>",
        '<tool_call>{"name": "f", "arguments": {</tool_call>',
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call> and on',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        "<tool_call>[]</tool_call>",
        '[TOOL_CALLS][{"name": "f", "arguments": 1}]',
        '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "unknown", "arguments": {}}]',
        '{"answer": 42}',
        '  {"name": "Ada", "born": 1815}',
        '{"name": "f", "arguments": {"cut off',
        "<tool_call>",
        "<tool_ca",
        "{",
        " \n\t",
        "{not json} at all",
        '<|python_tag|>print("x")',
        '{"name": "f", "arguments": {"a": 1e}}',
        "[" * 5000 + "]" * 5000,
        "<tool_call>" + "[" * 5000 + "]" * 5000,
    ],
)
def test_what_is_no_call_comes_out_as_the_text_that_it_is(mode: ToolMode, text: str) -> None:
    assert parse(mode, text) == (text, [])
    assert parse(mode, *text) == (text, [])


def test_without_tools_in_the_prompt_every_text_passes_at_once() -> None:
    parser = ToolParser((), ToolMode.NONE)
    assert parser.feed(f"<tool_call>{CALL}") == (f"<tool_call>{CALL}", ())


def test_ordinary_text_is_not_delayed() -> None:
    parser = ToolParser(TOOLS, HERMES)
    assert parser.feed("Hello <b") == ("Hello <b", ())
    assert parser.feed(" <") == (" ", ())
    assert parser.feed("i> there") == ("<i> there", ())


def test_json_that_cannot_be_a_call_is_let_go_at_its_first_key() -> None:
    parser = ToolParser(TOOLS, LLAMA3)
    assert parser.feed('{"na') == ("", ())
    assert parser.feed('tion": "x') == ('{"nation": "x', ())


def test_a_call_is_told_as_soon_as_its_json_is_whole() -> None:
    parser = ToolParser(TOOLS, HERMES)
    assert parser.feed("<tool_call>\n" + CALL[:-1]) == ("", ())
    text, calls = parser.feed("}")
    assert (text, [call.name for call in calls]) == ("", ["f"])
    assert parser.feed("\n</tool_") == ("", ())
    assert parser.flush() == ("", ())


def test_ids_repeat_with_the_seed_and_never_within_a_conversation() -> None:
    def ids(seed: int, n_calls_before: int) -> list[str]:
        calls = tuple(ToolCall(str(i), "f", "{}") for i in range(n_calls_before))
        prompt = ChatPrompt((Message(Role.ASSISTANT, "", calls),), TOOLS)
        parser = ToolParser.for_prompt(prompt, HERMES, seed=seed)
        _, found = parser.feed(f"<tool_call>{CALL}</tool_call>" * 3)
        return [call.id for call in found]

    assert ids(1, 0) == ids(1, 0)
    assert len({*ids(1, 0), *ids(1, 3), *ids(2, 0)}) == 9
    assert all(call_id.startswith("call_") for call_id in ids(1, 0))


PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "\n",
        " ",
        "text",
        "<",
        "{",
        "}",
        '"',
        CALL,
        '{"name": "f", "parameters": {}}',
        '{"x": 1}',
        "[TOOL_CALLS]",
        f"[{CALL}]",
        "<|python_tag|>",
        ";",
        "\\",
    ]
)


@given(
    mode=st.sampled_from(CALLING),
    pieces=st.lists(PIECES, max_size=8),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
@example(mode=HERMES, pieces=[" ", "<tool_call>", "x"], cuts=[1, 3])
@example(mode=ToolMode.FALLBACK, pieces=["{", "<tool_call>", "<tool_call>", f"[{CALL}]"], cuts=[2])
@example(mode=ToolMode.FALLBACK, pieces=["{", "<tool_call>", CALL, "}"], cuts=[2])
def test_any_split_finds_the_same_calls_and_shows_the_same_text(
    mode: ToolMode, pieces: list[str], cuts: list[int]
) -> None:
    text = "".join(pieces)
    borders = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    chunks = [text[a:b] for a, b in itertools.pairwise(borders)]
    assert parse(mode, *chunks) == parse(mode, text)


@given(mode=st.sampled_from(CALLING), pieces=st.lists(PIECES, max_size=8))
def test_where_no_call_is_found_no_character_is_lost(mode: ToolMode, pieces: list[str]) -> None:
    text = "".join(pieces)
    shown, calls = parse(mode, text)
    assert calls or shown == text
    for name, arguments in calls:
        assert name == "f"
        assert isinstance(json.loads(arguments), dict)


@given(mode=st.sampled_from(CALLING), pieces=st.lists(PIECES, max_size=8), at=st.integers(0, 8))
def test_a_copy_goes_on_from_the_same_place(mode: ToolMode, pieces: list[str], at: int) -> None:
    parser = ToolParser(TOOLS, mode)
    for piece in pieces[:at]:
        parser.feed(piece)
    other = copy.copy(parser)
    rest = [*pieces[at:]]
    assert [parser.feed(piece) for piece in rest] == [other.feed(piece) for piece in rest]
    assert parser.flush() == other.flush()


def test_a_long_call_costs_time_in_proportion_to_its_length() -> None:
    def seconds(n: int) -> float:
        best = float("inf")
        for _ in range(3):
            parser = ToolParser(TOOLS, HERMES)
            start = time.process_time()
            parser.feed('<tool_call>{"name": "f", "arguments": {"text": "')
            for _ in range(n):
                parser.feed("word")
            _, calls = parser.feed('"}}')
            best = min(best, time.process_time() - start)
            assert len(calls) == 1
        return best

    # Reading everything again with each piece would take 16 times as long; the margin is for a noisy machine.
    assert seconds(4_000) < 10 * seconds(1_000)
