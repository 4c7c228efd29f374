"""JSON Schemas from Python types, and values of those types from JSON text. Pure.

Schemas are made for models to read and for grammars to enforce: objects are closed, and references are written out
where that is possible.
"""

from typing import cast

import msgspec

from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.readers import from_json

MAX_NAME_CHARS = 64
_DEFS = "#/$defs/"
_LITERAL = frozenset({"default", "enum", "const", "examples"})
"""Keywords whose values are data, not schemas."""


def schema_of(kind: object) -> JsonObject:
    """The JSON Schema of a type: a Struct, dataclass, TypedDict, Enum, Literal, list[...], or a pydantic model.

    Raises:
        InvalidCall: JSON cannot hold such a value.
    """
    defs: dict[str, object] = {}
    made_by_class = getattr(kind, "model_json_schema", None)
    if callable(made_by_class):
        schema = dict(made_by_class())
    else:
        try:
            (schema,), defs = msgspec.json.schema_components((kind,), ref_template=_DEFS + "{name}")
        except (TypeError, RecursionError) as error:
            raise InvalidCall(
                f"no JSON Schema for the type {kind!r}: {str(error).splitlines()[-1]}",
                hint="use a msgspec Struct, a dataclass, an Enum, a Literal, or a JSON Schema as a dict",
            ) from error
    own_defs = schema.pop("$defs", {})
    return _self_contained(schema, {**defs, **own_defs})


def name_of(kind: object) -> str:
    """A short name for a schema, of letters, digits, `_` and `-`."""
    name = kind.get("title") if isinstance(kind, dict) else getattr(kind, "__name__", None)
    kept = "".join(c for c in str(name or "") if c.isascii() and (c.isalnum() or c in "_-"))
    return kept[:MAX_NAME_CHARS] or "output"


def parse_as(text: str, kind: object) -> object:
    """Read JSON text as a value of a type; a schema given as a dict means plain JSON.

    Raises:
        ValueError: The text is no JSON, or not of that type.
    """
    if isinstance(kind, dict):
        return msgspec.json.decode(text)
    validate = getattr(kind, "model_validate_json", None)
    if callable(validate):
        return validate(text)
    return from_json(text, cast("type[object]", kind))


def _self_contained(schema: JsonObject, defs: dict[str, object]) -> JsonObject:
    """Write references out; only types that contain themselves stay in `$defs`."""
    kept: dict[str, object] = {}
    whole = _written_out(schema, defs, open_names=(), kept=kept)
    assert isinstance(whole, dict)
    return {**whole, "$defs": kept} if kept else whole


def _written_out(
    part: object, defs: dict[str, object], *, open_names: tuple[str, ...], kept: dict[str, object]
) -> object:
    if isinstance(part, list):
        return [_written_out(item, defs, open_names=open_names, kept=kept) for item in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith(_DEFS):
        name = reference.removeprefix(_DEFS)
        beside = {key: value for key, value in part.items() if key != "$ref"}
        if not _is_recursive(name, defs):
            target = defs[name]
            assert isinstance(target, dict)
            merged = {**target, **beside}
            return _written_out(merged, defs, open_names=open_names, kept=kept)
        if name not in open_names and name not in kept:
            kept[name] = {}
            kept[name] = _written_out(defs[name], defs, open_names=(*open_names, name), kept=kept)
        return part
    made: JsonObject = {}
    for key, value in part.items():
        if key in _LITERAL:
            made[key] = value
        elif key == "properties" and isinstance(value, dict):
            made[key] = {
                name: _written_out(inner, defs, open_names=open_names, kept=kept)
                for name, inner in value.items()
            }
        else:
            made[key] = _written_out(value, defs, open_names=open_names, kept=kept)
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def _is_recursive(name: str, defs: dict[str, object]) -> bool:
    """Whether a definition leads back to itself."""
    seen: set[str] = set()
    pending = _references(defs.get(name))
    while pending:
        reached = pending.pop()
        if reached == name:
            return True
        if reached not in seen:
            seen.add(reached)
            pending |= _references(defs.get(reached))
    return False


def _references(part: object) -> set[str]:
    if isinstance(part, list):
        return {name for item in part for name in _references(item)}
    if not isinstance(part, dict):
        return set()
    found = {name for value in part.values() for name in _references(value)}
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith(_DEFS):
        found.add(reference.removeprefix(_DEFS))
    return found
