"""Constraints on a vocabulary of bytes, and on that of the default model."""

import json
import math
import random
import re
import threading

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.llama.vocabulary import END, make_vocabulary

from aios.abi.types import Constraint, JsonObject, JsonSchema, Regex
from aios.engine.llama import grammar
from aios.engine.llama.binding import Model
from aios.engine.llama.grammar import MAX_CACHED, MAX_GRAMMAR_BYTES, Lark, Matcher, Vocabulary
from aios.errors import InvalidCall, TooLarge

BYTES = make_vocabulary("<tool_call>", "[TOOL_CALLS]")


def allowed(matcher: Matcher, n: int = END + 3) -> list[int]:
    logits = np.zeros(n, np.float32)
    matcher.apply_mask(logits)
    return [int(token) for token in np.flatnonzero(np.isfinite(logits))]


def accepts(constraint: Constraint | Lark, text: str) -> bool:
    """Whether the text, byte by byte, is a whole output."""
    matcher = BYTES.compile(constraint)
    return all(matcher.accept(byte) for byte in text.encode()) and matcher.is_accepting


def walk(matcher: Matcher, seed: int, n_max: int = 400) -> str:
    """An output chosen by chance among what is allowed; it prefers to end."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice
    out = bytearray()
    for _ in range(n_max):
        if matcher.is_done:
            break
        tokens = allowed(matcher)
        if END in tokens and chance.random() < 0.5:
            break
        token = chance.choice([token for token in tokens if token < 256])
        assert matcher.accept(token)
        out.append(token)
    assert matcher.is_accepting
    return out.decode()


CLOSED: JsonObject = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["letter", "report"]},
        "n": {"type": "integer", "minimum": -3, "maximum": 120},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "word": {"type": "string", "pattern": "^[a-f]{1,4}$"},
    },
    "required": ["kind", "n", "flags"],
    "additionalProperties": False,
}


@settings(max_examples=40)
@given(seed=st.integers(0, 10**9))
def test_every_allowed_output_fits_its_schema(seed: int) -> None:
    text = walk(BYTES.compile(JsonSchema(CLOSED)), seed)
    assert jsonschema_rs.is_valid(CLOSED, json.loads(text))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**9))
def test_every_allowed_output_matches_its_pattern(seed: int) -> None:
    pattern = "(yes|no), (very |quite )?likely[.!]{1,3}"
    assert re.fullmatch(pattern, walk(BYTES.compile(Regex(pattern)), seed))


# Control characters would have to be escaped in a form that is not allowed.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"))


@settings(max_examples=60)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(CHARACTERS, max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(CHARACTERS, max_size=3), inner, max_size=3)
        ),
        max_leaves=5,
    )
)
def test_the_empty_schema_takes_any_json_value_in_the_fixed_layout(value: object) -> None:
    assert accepts(JsonSchema({}), json.dumps(value, ensure_ascii=False))


def test_the_layout_leaves_no_room_to_loop_on_white_space() -> None:
    schema = JsonSchema(CLOSED)
    good = '{"kind": "letter", "n": 1, "flags": [true, false]}'
    assert accepts(schema, good)
    assert not accepts(schema, good.replace(", ", ",  "))
    assert not accepts(schema, good.replace(": ", ":"))
    assert not accepts(schema, "{\n" + good[1:])
    assert not accepts(schema, good + " ")


def test_a_schema_cannot_bring_a_layout_of_its_own() -> None:
    schema: JsonObject = {"type": "array", "x-guidance": {"whitespace_flexible": True}}
    assert not accepts(JsonSchema(schema), "[  ]")


def test_properties_are_written_in_the_order_of_the_schema() -> None:
    first = BYTES.compile(JsonSchema(_two("a", "b"))).forced()
    second = BYTES.compile(JsonSchema(_two("b", "a"))).forced()
    assert (bytes(first[:3]), bytes(second[:3])) == (b'{"a', b'{"b')


def _two(*names: str) -> JsonObject:
    properties = {name: {"type": "boolean"} for name in names}
    return {
        "type": "object",
        "properties": properties,
        "required": list(names),
        "additionalProperties": False,
    }


def test_the_mask_leaves_allowed_logits_alone_and_shuts_all_others() -> None:
    matcher = BYTES.compile(Regex("[ab]"))
    logits = np.arange(END + 10, dtype=np.float32)
    matcher.apply_mask(logits)
    expected = np.full(END + 10, -np.inf, np.float32)
    expected[[97, 98]] = [97, 98]
    np.testing.assert_array_equal(logits, expected)


def test_the_end_is_allowed_exactly_where_the_output_is_whole() -> None:
    matcher = BYTES.compile(Regex("a{1,2}"))
    assert END not in allowed(matcher)
    assert matcher.accept(97)
    assert END in allowed(matcher)
    assert (matcher.is_accepting, matcher.is_done) == (True, False)
    assert matcher.accept(97)
    assert allowed(matcher) == [END]
    assert matcher.is_done


def test_a_token_that_does_not_fit_is_told_and_ends_the_matcher() -> None:
    matcher = BYTES.compile(Regex("ab"))
    assert not matcher.accept(98)
    with pytest.raises(InvalidCall):
        allowed(matcher)


def test_a_fork_goes_its_own_way() -> None:
    matcher = BYTES.compile(Regex("a(bc|de)"))
    matcher.accept(97)
    fork = matcher.fork()
    assert fork.accept(98)
    assert allowed(matcher) == [98, 100]
    assert allowed(fork) == [99]


def test_a_matcher_is_brought_back_by_giving_it_its_tokens_again() -> None:
    text = b'{"kind": "rep'
    matcher = BYTES.compile(JsonSchema(CLOSED))
    again = BYTES.compile(JsonSchema(CLOSED))
    assert all(matcher.accept(byte) for byte in text)
    assert all(again.accept(byte) for byte in text)
    assert allowed(matcher) == allowed(again)


def test_what_must_come_is_told() -> None:
    matcher = BYTES.compile(JsonSchema({"const": "x"}))
    assert bytes(matcher.forced()) == b'"x"'
    assert BYTES.compile(Regex("[ab]")).forced() == ()


def test_special_tokens_are_found_by_their_text() -> None:
    assert BYTES.find_special("<tool_call>") == END + 1
    assert BYTES.find_special("[TOOL_CALLS]") == END + 2
    assert BYTES.find_special("hello") is None
    assert BYTES.find_special("<other>") is None


def test_compiled_constraints_are_kept_up_to_a_number() -> None:
    vocabulary = make_vocabulary()
    for i in range(MAX_CACHED + 5):
        vocabulary.compile(Regex(f"a{{{i + 1}}}"))
    kept = [text for _, text in vocabulary._compiled]
    assert len(kept) == MAX_CACHED
    assert kept[0] == "a{6}"
    vocabulary.compile(Regex("a{6}"))
    assert [text for _, text in vocabulary._compiled][-1] == "a{6}"


def test_two_users_of_one_constraint_do_not_disturb_each_other() -> None:
    one, other = BYTES.compile(Regex("abc")), BYTES.compile(Regex("abc"))
    one.accept(97)
    assert allowed(other) == [97]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "Invalid type"),
        (
            {"type": "object", "properties": {"a": {"properties": {"b/c": {"type": "x"}}}}},
            "at #/properties/a/properties/b~1c: Invalid type",
        ),
        ({"$defs": {"X": {"items": {"minimum": "y"}}}, "$ref": "#/$defs/X"}, "at #/$defs/X/items"),
        ({"anyOf": [{"type": "null"}, {"not": {}}]}, "at #/anyOf/1: Unimplemented"),
        ({"type": "array", "prefixItems": [{}, {"format": "odd"}]}, "at #/prefixItems/1: Unknown"),
        ({"type": "string", "pattern": "("}, "regex parse error"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$ref": "https://x.example/schema.json"}, "is not present"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "oneOf"),
        ({"$ref": "#"}, "allows no output"),
        ({"minLength": 5, "maxLength": 2, "type": "string"}, "minLength"),
        ({"minimum": math.nan}, "is no JSON"),
        ({"const": {1, 2}}, "is no JSON"),
        ({"const": "\ud800"}, "cannot be used"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_and_the_place_named(
    schema: JsonObject, words: str
) -> None:
    with pytest.raises(InvalidCall, match=re.escape(words)):
        BYTES.compile(JsonSchema(schema))


def test_a_schema_nested_without_end_is_refused_before_it_is_read() -> None:
    schema: JsonObject = {"type": "string"}
    for _ in range(60):
        schema = {"items": schema}
    BYTES.compile(JsonSchema(schema))
    for _ in range(40):
        schema = {"items": schema}
    with pytest.raises(InvalidCall, match="nested more than"):
        BYTES.compile(JsonSchema(schema))
    for _ in range(10_000):
        schema = {"items": schema}
    with pytest.raises(InvalidCall, match="is no JSON"):
        BYTES.compile(JsonSchema(schema))
    while schema:  # freed level by level: the interpreter would recurse
        schema = schema.pop("items", {})  # type: ignore[assignment]  # it is a schema


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "unclosed group"),
        ("\\bword\\b", "lookarounds not supported"),
        ("(?=a)b", "look-around"),
        ("[^\\x00-\\x{10FFFF}]", "allows no output"),
        ("a\ud800", "cannot be used"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(pattern: str, words: str) -> None:
    with pytest.raises(InvalidCall, match=words) as raised:
        BYTES.compile(Regex(pattern))
    assert len(raised.value.message) < 500


def test_anchors_around_a_pattern_change_nothing() -> None:
    assert accepts(Regex("^(yes|no)$"), "yes")


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(TooLarge):
        BYTES.compile(JsonSchema({"enum": ["x" * MAX_GRAMMAR_BYTES]}))
    with pytest.raises(TooLarge):
        BYTES.compile(Regex("x" * (MAX_GRAMMAR_BYTES + 1)))


def test_what_takes_too_long_to_prepare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "MAX_COMPILE_S", 0.0)
    with pytest.raises(InvalidCall, match="too complex: it took"):
        make_vocabulary().compile(Regex("slow"))


def test_what_waits_for_a_busy_processor_is_not_taken_for_complex(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocabulary = make_vocabulary()
    build = vocabulary._build

    def build_late(kind: str, text: str) -> object:
        threading.Event().wait(0.5)
        return build(kind, text)

    monkeypatch.setattr(grammar, "MAX_COMPILE_S", 0.4)
    monkeypatch.setattr(vocabulary, "_build", build_late)
    assert not vocabulary.compile(Regex("yes|no")).is_done


def test_a_pattern_that_explodes_fails_instead_of_filling_the_memory() -> None:
    with pytest.raises(InvalidCall, match="too"):
        walk(BYTES.compile(Regex("(a{1000}){1000}")), 1)


@pytest.mark.parametrize(
    ("constraint", "begin"),
    [
        (Regex("~([ab]{1,100}){80,100}~"), "~"),
        (JsonSchema({"type": "string", "pattern": "^~([ab]{1,100}){80,100}~$"}), '"~'),
    ],
)
def test_what_explodes_in_the_middle_of_an_output_is_the_callers_to_mend(
    constraint: Constraint, begin: str
) -> None:
    vocabulary = make_vocabulary()

    def write(n: int) -> None:
        matcher = vocabulary.compile(constraint)
        for byte in begin.encode() + b"a" * n:
            assert byte in allowed(matcher)
            assert matcher.accept(byte)

    write(60)
    with pytest.raises(InvalidCall, match=r"cannot go on under its constraint: .*too many"):
        write(500)
    write(60)  # a shorter output of the same constraint is not spoiled by it


@pytest.mark.model
def test_the_default_models_vocabulary_masks_whole_tokens(model: Model) -> None:
    vocabulary = Vocabulary.from_llama(
        model.vocab, n_vocab=model.n_vocab, eos_tokens=sorted(model.eog_tokens)
    )
    logits = np.zeros(model.n_vocab, np.float32)
    matcher = vocabulary.compile(JsonSchema(CLOSED))
    for token in vocabulary._tokenizer.tokenize_str('{"kind": "'):
        assert matcher.accept(token)
    matcher.apply_mask(logits)
    pieces = {
        vocabulary._tokenizer.decode_str([int(token)]) for token in np.flatnonzero(logits == 0)
    }
    assert {"letter", "report", "l", "re"} <= pieces
    assert all("letter".startswith(piece) or "report".startswith(piece) for piece in pieces)
    assert vocabulary.find_special("<|im_end|>") == 2
    assert vocabulary.find_special("<tool_call>") is None
