"""The grammar of outputs with tools: what it allows is a valid call, and what it allows the parser reads."""

import json
import random

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.llama.vocabulary import END, make_vocabulary

from aios.abi.types import (
    Constraint,
    JsonObject,
    JsonSchema,
    Message,
    Regex,
    Role,
    ToolChoice,
    ToolSpec,
)
from aios.engine.base import ChatPrompt
from aios.engine.llama.grammar import Matcher, Vocabulary
from aios.engine.llama.template import ToolMode
from aios.engine.llama.toolcalls import OPENING, ToolParser
from aios.engine.llama.toolgrammar import tool_constraint
from aios.errors import InvalidCall

PLACE: JsonObject = {
    "$defs": {"Unit": {"enum": ["C", "F"]}},
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}, "unit": {"$ref": "#/$defs/Unit"}},
    "required": ["n", "unit"],
}  # fmt: skip
TOOLS = (
    ToolSpec('say "x"', "", PLACE),
    ToolSpec("stop"),
    ToolSpec("list", "", {"properties": {"k": {"type": "boolean"}}}),
)
SPECIALS = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<think>", "</think>")  # fmt: skip
PLAIN, SPECIAL = make_vocabulary(), make_vocabulary(*SPECIALS)
CALLING = [ToolMode.FALLBACK, ToolMode.HERMES, ToolMode.LLAMA3, ToolMode.MISTRAL]
FIRST = '{"name": "stop", "arguments": {}}'


def compiled(
    mode: ToolMode,
    choice: str = "auto",
    *,
    name: str = "",
    vocabulary: Vocabulary = PLAIN,
    content: Constraint | None = None,
) -> Matcher:
    prompt = ChatPrompt((Message(Role.USER, "x"),), TOOLS, ToolChoice(choice, name))
    lark = tool_constraint(prompt, mode, find_special=vocabulary.find_special, content=content)
    assert lark is not None
    return vocabulary.compile(lark)


def spelled(text: str, vocabulary: Vocabulary) -> list[int]:
    """The tokens of a text: bytes, but special tokens where there are some."""
    tokens: list[int] = []
    while text:
        special = next((s for s in SPECIALS if text.startswith(s) and vocabulary is SPECIAL), None)
        if special:
            tokens.append(END + 1 + SPECIALS.index(special))
            text = text[len(special) :]
        else:
            tokens += text[0].encode()
            text = text[1:]
    return tokens


def accepts(matcher: Matcher, text: str, vocabulary: Vocabulary = PLAIN) -> bool:
    return all(map(matcher.accept, spelled(text, vocabulary))) and matcher.is_accepting


def walk(matcher: Matcher, chance: random.Random, vocabulary: Vocabulary) -> str:
    """An output by chance, as text in which special tokens are spelled out."""
    out = bytearray()
    n_tokens = END + 1 + (len(SPECIALS) if vocabulary is SPECIAL else 0)
    while not matcher.is_done:
        logits = np.zeros(n_tokens, np.float32)
        matcher.apply_mask(logits)
        tokens = [int(token) for token in np.flatnonzero(np.isfinite(logits))]
        if END in tokens:
            break
        token = chance.choice([token for token in tokens if token < 256 or token > END])
        assert matcher.accept(token)
        out += bytes([token]) if token < 256 else SPECIALS[token - END - 1].encode()
    return out.decode()


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(CALLING),
    choice=st.sampled_from(["required", "tool"]),
    vocabulary=st.sampled_from([PLAIN, SPECIAL]),
    seed=st.integers(0, 10**9),
)
def test_where_a_call_must_come_every_output_is_one_that_the_parser_reads(
    mode: ToolMode, choice: str, vocabulary: Vocabulary, seed: int
) -> None:
    matcher = compiled(mode, choice, name='say "x"', vocabulary=vocabulary)
    text = walk(matcher, random.Random(seed), vocabulary)  # noqa: S311 - a repeatable choice
    shown, calls = ToolParser(TOOLS, mode).feed(text)
    assert shown == ""
    assert len(calls) >= 1
    for call in calls:
        tool = next(tool for tool in TOOLS if tool.name == call.name)
        assert choice == "required" or tool is TOOLS[0]
        assert jsonschema_rs.is_valid(tool.parameters, json.loads(call.arguments))


@pytest.mark.parametrize("vocabulary", [PLAIN, SPECIAL])
@pytest.mark.parametrize("mode", [ToolMode.FALLBACK, ToolMode.HERMES])
def test_with_auto_the_model_may_speak_and_a_call_that_opens_must_be_right(
    mode: ToolMode, vocabulary: Vocabulary
) -> None:
    def fits(text: str) -> bool:
        return accepts(compiled(mode, vocabulary=vocabulary), text, vocabulary)

    call = f"<tool_call>\n{FIRST}\n</tool_call>"
    for good in ("", "Hello, 2 < 3.\n<tool", "</b> <tools>", call, f"Wait.\n\n{call}"):
        assert fits(good), good
    for bad in (
        "<tool_call>",
        f"<tool_call>{FIRST}",
        call.replace("stop", "unknown"),
        f"{call} and",
    ):
        assert not fits(bad), bad
    assert fits(f"{call}\n{call}") is (mode is ToolMode.HERMES)


@pytest.mark.parametrize("mode", CALLING)
@pytest.mark.parametrize("choice", ["required", "tool"])
def test_where_a_call_must_come_no_words_may(mode: ToolMode, choice: str) -> None:
    matcher = compiled(mode, choice, name="stop")
    assert not accepts(matcher, "Hello")


def test_the_chosen_tool_is_the_only_one() -> None:
    assert accepts(
        compiled(ToolMode.FALLBACK, "tool", name="stop"), f"<tool_call>\n{FIRST}\n</tool_call>"
    )
    other = FIRST.replace("stop", "list")
    assert not accepts(
        compiled(ToolMode.FALLBACK, "tool", name="stop"), f"<tool_call>\n{other}\n</tool_call>"
    )


def test_a_thinking_model_may_think_before_it_calls() -> None:
    thought = "<think>hm</think>So: "
    call = f"<tool_call>\n{FIRST}\n</tool_call>"
    assert accepts(compiled(ToolMode.HERMES, vocabulary=SPECIAL), thought + call, SPECIAL)
    assert accepts(compiled(ToolMode.HERMES, vocabulary=SPECIAL), thought, SPECIAL)
    thinking = make_vocabulary("<think>", "</think>")
    lark = tool_constraint(
        ChatPrompt((), TOOLS), ToolMode.HERMES, find_special=thinking.find_special
    )
    assert lark is not None
    matcher = thinking.compile(lark)
    tokens = [END + 1, *b"hm", END + 2, *b"So: ", *call.encode()]
    assert all(map(matcher.accept, tokens))
    assert matcher.is_accepting


def test_mistral_calls_open_with_their_token() -> None:
    text = f"Well: [TOOL_CALLS][{FIRST}, {FIRST}]"
    assert accepts(compiled(ToolMode.MISTRAL, vocabulary=SPECIAL), text, SPECIAL)
    assert not accepts(compiled(ToolMode.MISTRAL, vocabulary=SPECIAL), text[:-1], SPECIAL)


def test_llama3_writes_bare_json_with_parameters() -> None:
    call = FIRST.replace("arguments", "parameters")
    assert accepts(compiled(ToolMode.LLAMA3, "required"), call)
    assert not accepts(compiled(ToolMode.LLAMA3, "required"), FIRST)


def test_where_nothing_marks_a_call_or_there_are_no_tools_the_output_is_free() -> None:
    prompt = ChatPrompt((), TOOLS)
    for mode in (ToolMode.NONE, ToolMode.LLAMA3):
        assert tool_constraint(prompt, mode, find_special=PLAIN.find_special) is None


@pytest.mark.parametrize("mode", CALLING)
def test_the_jobs_own_constraint_holds_for_an_answer_without_a_call(mode: ToolMode) -> None:
    call = {"name": "stop", "parameters" if mode is ToolMode.LLAMA3 else "arguments": {}}
    written = {
        ToolMode.LLAMA3: json.dumps(call),
        ToolMode.MISTRAL: f"{OPENING[mode]}[{json.dumps(call)}]",
    }.get(mode, f"<tool_call>\n{json.dumps(call)}\n</tool_call>")
    schema = JsonSchema({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]})
    pattern = Regex("(yes|no)/\\w+")
    for content, good in ((schema, '{"a": 1}'), (pattern, "yes/né")):
        assert accepts(compiled(mode, content=content), good)
        assert accepts(compiled(mode, content=content), written)
        assert not accepts(compiled(mode, content=content), "words")


def test_arguments_that_no_one_asked_for_cannot_be_made_up() -> None:
    call = '<tool_call>\n{"name": "list", "arguments": {"k": true, "more": 1}}\n</tool_call>'
    assert not accepts(compiled(ToolMode.FALLBACK, "required"), call)


def test_a_schema_with_rules_for_other_names_is_left_as_it_is() -> None:
    open_tool = ToolSpec("o", "", {"patternProperties": {"^x": {"type": "boolean"}}})
    prompt = ChatPrompt((), (open_tool,), ToolChoice("required"))
    lark = tool_constraint(prompt, ToolMode.FALLBACK, find_special=PLAIN.find_special)
    assert lark is not None
    call = '<tool_call>\n{"name": "o", "arguments": {"xa": true}}\n</tool_call>'
    assert accepts(PLAIN.compile(lark), call)


def test_a_tool_whose_schema_cannot_be_used_is_refused_by_name() -> None:
    broken = ToolSpec("broken", "", {"properties": {"a": {"not": {}}}})
    prompt = ChatPrompt((), (TOOLS[1], broken), ToolChoice("required"))
    lark = tool_constraint(prompt, ToolMode.FALLBACK, find_special=PLAIN.find_special)
    assert lark is not None
    with pytest.raises(
        InvalidCall, match=r"the tool `broken`: .* at #/properties/a: Unimplemented"
    ):
        PLAIN.compile(lark)


def test_a_tool_that_wants_no_object_is_refused() -> None:
    odd = ToolSpec("odd", "", {"type": "string"})
    with pytest.raises(InvalidCall, match="`odd` are no schema of an object"):
        tool_constraint(ChatPrompt((), (odd,)), ToolMode.HERMES, find_special=PLAIN.find_special)
