"""Values for JSON schemas."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import JsonObject
from aios.engine.example import example_of
from aios.errors import InvalidCall, Unsupported

NUMBERS = st.one_of(
    st.integers(-1000, 1000), st.floats(-100, 100).map(lambda value: round(value, 2))
)


def fits(schema: JsonObject, value: object) -> bool:
    return jsonschema_rs.is_valid(schema, value)


def numbers(kind: str) -> st.SearchStrategy[JsonObject]:
    bound = st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
    bounds = st.dictionaries(bound, NUMBERS, max_size=3)
    steps: st.SearchStrategy[JsonObject] = st.one_of(
        st.just({}), st.sampled_from([1, 2, 7, 0.5, 0.25]).map(lambda n: {"multipleOf": n})
    )
    return st.builds(lambda b, s: {"type": kind, **b, **s}, bounds, steps)


STRINGS = st.one_of(
    st.builds(
        lambda a, b: {"type": "string", "minLength": a, "maxLength": a + b},
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    st.just({"type": "string", "pattern": "^[a-z]{3}-[0-9]+$"}),
    st.just({"type": "string", "format": "date-time"}),
)
LEAVES: st.SearchStrategy[JsonObject] = st.one_of(
    numbers("integer"),
    numbers("number"),
    STRINGS,
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["string", "null"]}),
    st.lists(NUMBERS, min_size=1, max_size=3).map(lambda members: {"enum": members}),
    st.just({"const": {"a": [1, "ü"]}}),
    st.just({}),
)


def grown(inner: st.SearchStrategy[JsonObject]) -> st.SearchStrategy[JsonObject]:
    names = st.sampled_from(["a", "b", "c"])
    return st.one_of(
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                "additionalProperties": required - properties.keys() != set(),
            },
            st.dictionaries(names, inner, max_size=3),
            st.sets(names, max_size=3),
        ),
        st.builds(
            lambda items, n: {"type": "array", "items": items, "minItems": n},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda first: {"type": "array", "prefixItems": first, "minItems": len(first)},
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda schema: {"$defs": {"it": schema}, "allOf": [{"title": "x"}]} | schema, inner
        ),
    )


SCHEMAS = st.recursive(LEAVES, grown, max_leaves=6)


@given(SCHEMAS, st.integers(0, 1 << 32))
def test_a_value_fits_its_schema(schema: JsonObject, seed: int) -> None:
    try:
        value = example_of(schema, seed=seed)
    except (InvalidCall, Unsupported):
        return
    assert fits(schema, value)
    json.dumps(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3},
        {"type": "integer", "exclusiveMaximum": -2, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.2},
        {"type": "number", "multipleOf": 0.1, "minimum": 0.25},
        {"properties": {"a": {"type": "null"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {}, "b": {"type": "integer"}}, "minProperties": 2},
        {"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b~1c"}, "b/c": {"enum": [7]}}},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        {"oneOf": [{"type": "string"}, {"type": "null"}]},
        {"allOf": [{"$ref": "#/$defs/a"}, {"required": ["n"]}], "$defs": {"a": {"properties": {"n": {"type": "integer"}}}}},
        {"anyOf": [{"not": {}}, {"type": "integer"}]},
    ],
)  # fmt: skip
def test_common_schemas_are_served(schema: JsonObject) -> None:
    assert fits(schema, example_of(schema))


def test_a_recursive_schema_ends_where_it_may() -> None:
    node: JsonObject = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    assert example_of(node) == {"next": None}


def test_tagged_unions_are_told_apart_by_their_tag() -> None:
    def option(tag: str) -> JsonObject:
        return {
            "type": "object",
            "properties": {"kind": {"const": tag}, "n": {"type": "integer"}},
            "required": ["n"],
        }

    schema: JsonObject = {
        "oneOf": [option("a"), option("b")],
        "discriminator": {"propertyName": "kind"},
    }
    assert example_of(schema) == {"n": 0, "kind": "a"}


def test_the_seed_picks_from_an_enumeration() -> None:
    schema: JsonObject = {"enum": ["x", "y", "z"]}
    assert {example_of(schema, seed=seed) for seed in range(3)} == {"x", "y", "z"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strng"},
        {"type": 7},
        {"enum": []},
        {"enum": "x"},
        {"anyOf": []},
        {"$ref": "#/$defs/nowhere"},
        {"properties": [], "type": "object"},
        {"type": "array", "minItems": -1},
        {"type": "array", "minItems": 1, "items": False},
        {"type": "string", "minLength": "3"},
        {"type": "integer", "multipleOf": 0},
        {"type": "object", "required": ["a"], "properties": {"a": 7}},
    ],
)  # fmt: skip
def test_what_is_malformed_is_the_callers_mistake(schema: JsonObject) -> None:
    with pytest.raises(InvalidCall):
        example_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"if": {}, "then": {}},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"oneOf": [{"minimum": 1}, {"maximum": 5}]},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#"},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 2},
        {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"const": 1}},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "format": "date", "maxLength": 3},
        {"type": "integer", "minimum": 3, "maximum": 1},
        {"allOf": [{"type": "integer"}, {"type": "string"}]},
        {"allOf": [{"$ref": "#"}]},
        {"type": "object", "minProperties": 3},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]},
    ],
)  # fmt: skip
def test_what_is_not_known_or_does_not_end_is_refused(schema: JsonObject) -> None:
    with pytest.raises(Unsupported):
        example_of(schema)
