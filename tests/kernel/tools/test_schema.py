import pytest
from msgspec.msgpack import Ext

from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.kernel.tools.schema import MAX_FAULT_CHARS, MAX_INSTANCE_DEPTH, Schema, usage

SEARCH: JsonObject = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1},
        "limit": {"type": "integer", "maximum": 20, "default": 5},
        "order": {"enum": ["new", "old"]},
        "tag": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["query"],
    "additionalProperties": False,
}


def test_what_fits_has_no_faults() -> None:
    assert not Schema(SEARCH).faults({"query": "boat", "limit": 3, "order": "new"})


def test_faults_say_where_and_what() -> None:
    faults = "; ".join(Schema(SEARCH).faults({"limit": 30, "colour": "red"}))
    for words in (
        "/limit: 30 is greater than the maximum of 20",
        "'colour' was unexpected",
        "query",
    ):
        assert words in faults


@pytest.mark.parametrize("value", [{1: 2}, {"1": 2, 1: 3}, {None: 1}, b"x", Ext(5, b"x")])
def test_what_msgpack_has_and_json_has_not_is_a_fault(value: object) -> None:
    for schema in (Schema({"type": "object"}), Schema({})):
        assert not schema.faults({"a": [1, "x", None, True, 1.5]})
        (fault,) = schema.faults({"a": [value]})
        assert "what JSON cannot" in fault


def test_many_and_long_faults_are_cut() -> None:
    many = Schema({"items": {"type": "integer"}}).faults(["x"] * 50)
    assert len(many) == 6
    assert many[-1] == "and more"
    (long,) = Schema({"type": "integer"}).faults("y" * 100_000)
    assert len(long) < MAX_FAULT_CHARS + 20


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"pattern": "(?=a)"},
        {"pattern": "a{1000}{1000}"},
        {"properties": {f"p{i}": {"pattern": f"^(a|b){{1,{i}}}$"} for i in range(900, 1900)}},
        {"description": "x" * 70_000},
        {"properties": {"a": object()}},
        {"maximum": 10**30},
        {"properties": {"n": {"default": -(10**30)}}},
        {"enum": [{1: 2}]},
        {"const": b"x"},
        {"default": Ext(5, b"x")},
    ],
)
def test_what_is_no_schema_is_refused(schema: JsonObject) -> None:
    with pytest.raises(InvalidCall):
        Schema(schema).check()


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$dynamicRef": "#x", "$dynamicAnchor": "x"},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_leads_back_to_itself_for_the_same_value_is_none(schema: JsonObject) -> None:
    with pytest.raises(InvalidCall, match="too long"):
        Schema(schema).faults({"a": 1})


def test_deep_values_and_slow_patterns_harm_nobody() -> None:
    deep: object = {}
    for _ in range(10_000):
        deep = {"a": deep}
    assert Schema({"properties": {"a": {"$ref": "#"}}}).faults(deep) == [
        f"it is nested more than {MAX_INSTANCE_DEPTH} deep"
    ]
    assert Schema({"pattern": "^(a+)+$"}).faults("a" * 50_000 + "b")


def test_usage_reads_like_a_signature() -> None:
    assert usage("search", SEARCH) == (
        "search(query: string, limit: integer = 5, order: 'new' | 'old' (optional), tag: string | null (optional))"
    )
    assert usage("any", {}) == "any(...)"
