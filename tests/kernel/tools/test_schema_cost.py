"""No schema has the kernel look at a value more often than it has time for."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.kernel.tools.schema import MAX_LOOKS, Schema
from aios.kernel.tools.schema_cost import ENOUGH, Cost

LADDER: JsonObject = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 10} for i in range(12)}
NODE: JsonObject = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "children": {"type": "array", "items": {"$ref": "#"}},
    },
    "required": ["value"],
}
NOT: JsonObject = {"type": "object", "properties": {"not": {"$ref": "#"}}}
ANYTHING: JsonObject = {
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "additionalProperties": {"$ref": "#"}},
    ]
}
FORMULA: JsonObject = {"anyOf": [{"type": "number"}, *[NOT] * 4]}


def test_what_is_looked_at_is_counted_at_each_depth() -> None:
    assert [Cost({"type": "object"}).at(depth) for depth in (0, 1)] == [1, 0]
    both: JsonObject = {
        "allOf": [{"minimum": 1}, {"maximum": 2}],
        "properties": {"a": {}, "b": {"not": {}}},
    }
    assert [Cost(both).at(depth) for depth in (0, 1, 2)] == [3, 2, 0]
    assert [Cost(NODE).at(depth) for depth in range(5)] == [2, 1, 3, 1, 3]
    assert [Cost(FORMULA).at(depth) for depth in range(3)] == [6, 28, 112]
    assert Cost({"prefixItems": [{}, {}], "items": {}, "unevaluatedItems": {}}).at(1) == 3


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**LADDER, "d12": {"type": "string"}}},
        {"$ref": "#"},
        {"anyOf": [{"$dynamicRef": "#me"}], "$dynamicAnchor": "me"},
        {"$defs": {f"d{i}": {"oneOf": [{"$ref": f"d{i + 1}"}] * 9, "$id": f"d{i}"} for i in range(9)} | {"e": {"$id": "d9"}},
         "items": {"items": {"$ref": "d0"}}},
    ],
)  # fmt: skip
def test_a_schema_that_takes_for_ever_is_none(schema: JsonObject) -> None:
    assert any(Cost(schema).at(depth) > MAX_LOOKS for depth in range(3))
    with pytest.raises(InvalidCall):
        Schema({"type": "object", **schema}).check()


def test_a_chain_without_end_is_counted_as_such() -> None:
    chain: JsonObject = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(5_000)}
    assert Cost({"$ref": "#/$defs/d0", "$defs": chain}).at(0) == ENOUGH


def test_a_value_is_checked_as_deep_as_there_is_time_for() -> None:
    schema, value = Schema(FORMULA), "x"
    assert schema.faults(json.loads('{"not":' * 6 + '"x"' + "}" * 6))
    begun_s = time.process_time()
    assert schema.faults(json.loads('{"not":' * 60 + '"x"' + "}" * 60)) == [
        "to check it would take too long: say less, or nest it less deep"
    ]
    assert time.process_time() - begun_s < 2
    assert schema.faults(value) != []
    tree = Schema(NODE)
    leaves = [{"value": 1, "children": []}] * 100_000
    assert tree.faults({"value": 1, "children": leaves}) == []
    assert tree.faults(json.loads('{"value":1,"children":[' * 30 + "]}" * 30)) == []


def test_what_is_said_of_lists_costs_nothing_where_an_object_is() -> None:
    """Any JSON, as it is said with types, is as long as it looks."""
    cost = Cost(ANYTHING)
    assert [cost.at(depth) for depth in range(100)] == [4, *[5] * 99]
    assert Schema(ANYTHING).faults(json.loads('{"a":[' * 60 + "1" + "]}" * 60)) == []
    both: JsonObject = {**ANYTHING, "items": {"$ref": "#"}}
    assert Cost(both).at(30) > MAX_LOOKS


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [*range(10_000)]}}, [-1] * 9_000),
        ({"items": {"enum": [{"a": i} for i in range(5_000)]}}, [{"a": -1}] * 500),
        ({"items": {"required": [f"k{i}" for i in range(6_000)]}}, [{}] * 300),
        ({"items": {"type": "string"}}, [*range(1_000_000)]),
        ({"allOf": [{"format": "email"}, {"format": "uri"}] * 700}, "a" * 1_000_000),
    ],
    ids=["choices", "tables", "names", "faults", "texts"],
)
def test_nothing_is_compared_or_complained_of_for_long(schema: JsonObject, value: object) -> None:
    begun_s = time.process_time()
    assert Schema(schema).faults(value)
    assert time.process_time() - begun_s < 5, (
        "with coverage on a slow machine 2 s; all of it takes minutes"
    )


def test_of_a_long_value_the_first_fault_is_told() -> None:
    first, rest = Schema({"items": {"type": "string"}}).faults([*range(100_000)])
    assert first == '/0: 0 is not of type "string"'
    assert rest == "and perhaps more"
    assert len(Schema({"items": {"type": "string"}}).faults([*range(1_000)])) == 6


def test_two_threads_that_compile_a_schema_at_once_both_find_it_good() -> None:
    part: JsonObject = {
        "type": "object",
        "properties": {f"b{i}": {"type": "string"} for i in range(8)},
    }
    many: JsonObject = {"type": "object", "properties": {f"a{i}": part for i in range(40)}}
    begin = Barrier(2)

    def check(schema: Schema) -> None:
        begin.wait(10)
        schema.check()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(60):
            schema = Schema(json.loads(json.dumps(many)))  # in which no two parts are one
            for each in [pool.submit(check, schema) for _ in range(2)]:
                each.result()
