"""What holds of all calls."""

from collections.abc import Iterator
from typing import get_args

import pytest
from msgspec import inspect

from aios.abi.every import AnyCall
from aios.abi.memory import MemoryGet
from aios.abi.types import MAX_INT
from aios.abi.wire import call_from_json
from aios.errors import InvalidCall

TOKENS = "sampling.logit_bias"
"""Its keys are numbers of tokens, which the engine checks."""


def unbounded(kind: inspect.Type, path: str, inside: frozenset[type]) -> Iterator[str]:
    """The whole numbers in a type that may be larger than the database can hold."""
    match kind:
        case inspect.IntType():
            if kind.le is None or kind.le > MAX_INT:
                yield path
        case inspect.UnionType():
            for each in kind.types:
                yield from unbounded(each, path, inside)
        case inspect.StructType():
            if kind.cls not in inside:
                for field in kind.fields:
                    below = inside | {kind.cls}
                    yield from unbounded(field.type, f"{path}.{field.name}", below)
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType():
            yield from unbounded(kind.item_type, path, inside)
        case inspect.DictType():
            yield from unbounded(kind.key_type, path, inside)
            yield from unbounded(kind.value_type, path, inside)
        case _:
            pass


def test_no_call_takes_a_number_that_the_database_cannot_hold() -> None:
    found = [
        path
        for call in get_args(AnyCall)
        for path in unbounded(inspect.type_info(call), call.__name__, frozenset())
        if TOKENS not in path
    ]
    assert found == []


def test_such_a_number_is_the_callers_mistake() -> None:
    assert call_from_json(b'{"call":"memory_get","id":%d}' % MAX_INT) == MemoryGet(id=MAX_INT)
    for number in (MAX_INT + 1, 2**64, 10**40):
        with pytest.raises(InvalidCall, match="id"):
            call_from_json(b'{"call":"memory_get","id":%d}' % number)
