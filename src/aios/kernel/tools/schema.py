"""JSON Schema 2020-12: whether arguments and results fit, and what to tell a model if they do not.

The checks are jsonschema-rs, which reads no network here (`offline`), uses regular expressions of linear cost, and bounds the depth of
a schema by itself. It is imported with the first schema: 25 ms and 7 MB that a kernel without tools does not pay.
"""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Protocol

import msgspec

from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.kernel.tools.schema_cost import Cost, count_patterns

MAX_SCHEMA_BYTES = 64 << 10
MAX_INSTANCE_DEPTH = 128
MAX_LOOKS = 1_000_000
"""How often a schema may have parts of a value looked at, and 16 times for each of them besides: 0.1 s."""
MAX_LOOKS_FOR_ALL = 10_000
"""Where there may be more faults, only the first is looked for: all are made before one is told, each in some microseconds."""
DEPTHS_CHECKED = 4
"""So deep a schema is counted before there is a value."""
MAX_FAULTS = 5
"""Faults that a model is told at once."""
MAX_FAULT_CHARS = 300
PLAIN = (int, float, bool, NoneType)
LOOKED_AT_ONCE = 64
"""Characters of a text that are looked at while one number is."""
MAX_PATTERN_BYTES = 1 << 20
MAX_PATTERNS_BYTES = 32 << 20
"""What a regular expression, and all of a schema, may take when they are compiled: 0.1 s of all."""


class Fault(Protocol):
    """What is wrong at one place, as jsonschema-rs says it."""

    message: str
    instance_path: list[str | int]


class Validator(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: object) -> bool:
        """Whether it fits."""
        ...

    def iter_errors(self, instance: object) -> "Iterator[Fault]":
        """All that is wrong; each is made before the first is given."""
        ...

    def validate(self, instance: object) -> None:
        """Raise `jsonschema_rs.ValidationError`, which is a `Fault`, for the first that is wrong."""
        ...


class Schema:
    """A JSON Schema, compiled when it is first used."""

    def __init__(self, schema: JsonObject) -> None:
        self.schema = schema
        self._kept: tuple[Validator, Cost] | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether a value is checked at once."""
        return self._kept is not None

    def check(self) -> None:
        """Compile it; that may take half a second.

        Raises:
            InvalidCall: It is no JSON Schema 2020-12, it is too long, or it refers to what is not in it.
        """
        self._compiled()

    def faults(self, instance: object) -> list[str]:
        """What is wrong with a value, for a model to read; nothing if it fits."""
        sizes = _sizes(instance)
        if not sizes:
            return [
                "it holds what JSON cannot: text, numbers, true, false, null, lists and objects with names of text"
            ]
        if len(sizes) > MAX_INSTANCE_DEPTH:
            return [f"it is nested more than {MAX_INSTANCE_DEPTH} deep"]
        validator, cost = self._compiled()
        looks = _looks(cost, sizes)
        if looks > MAX_LOOKS + 16 * sum(sizes):
            return ["to check it would take too long: say less, or nest it less deep"]
        if validator.is_valid(instance):
            return []
        if looks > MAX_LOOKS_FOR_ALL:
            return _first(validator, instance)
        found: list[str] = []
        for fault in validator.iter_errors(instance):
            if len(found) == MAX_FAULTS:
                found.append("and more")
                break
            found.append(_told(fault))
        return found

    def _compiled(self) -> tuple[Validator, Cost]:
        """Both, kept once they are whole: two threads may compile it at once, each for itself."""
        if self._kept is None:
            validator, cost = _compile(self.schema), Cost(self.schema)
            if _looks(cost, [1] * DEPTHS_CHECKED) > MAX_LOOKS:
                raise InvalidCall(
                    "to check a value against the schema would take too long",
                    hint="say less with `anyOf`, `allOf`, `oneOf` and `$ref` in one another",
                )
            self._kept = validator, cost
        return self._kept


def usage(name: str, parameters: Mapping[str, object]) -> str:
    """A tool's signature in words of JSON, such as `search(query: string, limit: integer = 5)`."""
    properties = parameters.get("properties")
    required = parameters.get("required")
    if not isinstance(properties, dict):
        return f"{name}(...)"
    needed = required if isinstance(required, list) else []
    shown = [
        f"{key}: {_type_words(part)}" + ("" if key in needed else _default_words(part))
        for key, part in properties.items()
    ]
    return f"{name}({', '.join(shown)})"


def _compile(schema: JsonObject) -> Validator:
    import jsonschema_rs  # noqa: PLC0415 - start-up time, and memory of a kernel without tools

    try:
        size_bytes = len(msgspec.json.encode(schema, order="deterministic"))  # as it is digested
        msgspec.msgpack.encode(schema)  # as it is listed, described and kept
    except OverflowError as error:
        raise InvalidCall(
            "a number in the schema is out of range", hint="integers have 64 bits here"
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCall(f"the schema is no JSON: {error}", hint="pass a JSON object") from error
    if size_bytes > MAX_SCHEMA_BYTES:
        raise InvalidCall(
            f"a schema of {size_bytes} bytes is over the limit of {MAX_SCHEMA_BYTES}",
            hint="models do not read that much either; say less",
        )
    room_bytes = MAX_PATTERNS_BYTES // max(1, count_patterns(schema))
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=min(MAX_PATTERN_BYTES, room_bytes)
            ),
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        reason = str(error).partition("\n")[0][:MAX_FAULT_CHARS]
        raise InvalidCall(
            f"no JSON Schema 2020-12: {reason}",
            hint="regular expressions are short and have no look-around here, and references stay within the schema",
        ) from error


def _looks(cost: Cost, sizes: list[int]) -> int:
    """How often parts of a value would be looked at of which there are so many at each depth."""
    return sum(n * cost.at(depth) for depth, n in enumerate(sizes))


def _first(validator: Validator, instance: object) -> list[str]:
    """The first fault of a value that has some."""
    import jsonschema_rs  # noqa: PLC0415 - as above

    try:
        validator.validate(instance)
    except jsonschema_rs.ValidationError as fault:
        return [_told(fault), "and perhaps more"]
    return ["it does not fit"]


def _told(fault: Fault) -> str:
    where = "".join(f"/{part}" for part in fault.instance_path)
    words = fault.message
    if len(words) > MAX_FAULT_CHARS:
        half = MAX_FAULT_CHARS // 2
        words = f"{words[:half]} ... {words[-half:]}"
    return f"{where}: {words}" if where else words


def _sizes(value: object) -> list[int]:
    """How many values there are at each depth, a long text counted as several, without recursion of our own; nothing if one is what JSON has not, as msgpack has."""
    sizes, level = list[int](), [value]
    while level and len(sizes) <= MAX_INSTANCE_DEPTH:
        inner, n = list[object](), len(level)
        for each in level:
            if isinstance(each, str):
                n += len(each) // LOOKED_AT_ONCE
            elif isinstance(each, dict):
                if not all(isinstance(name, str) for name in each):
                    return []
                n += sum(map(len, each)) // LOOKED_AT_ONCE
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif not isinstance(each, PLAIN):
                return []
        sizes.append(n)
        level = inner
    return sizes


def _type_words(part: object) -> str:
    if not isinstance(part, dict):
        return "any"
    for key in ("enum", "anyOf"):
        options = part.get(key)
        if isinstance(options, list):
            words = [
                _type_words(each) if isinstance(each, dict) else repr(each) for each in options
            ]
            return " | ".join(words)
    return str(part.get("type", "any"))


def _default_words(part: object) -> str:
    has_default = isinstance(part, dict) and "default" in part
    return f" = {part['default']!r}" if isinstance(part, dict) and has_default else " (optional)"
