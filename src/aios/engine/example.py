"""A small value that fits a JSON Schema: what the scripted engine writes under one. Pure.

It holds the required properties and the fewest items; numbers are as near to zero as they may be; of an enumeration the
seed picks the member. Keywords that it does not know are refused, never ignored.
"""

from fractions import Fraction
from math import ceil, floor, isfinite

from aios.abi.types import JsonObject
from aios.engine.pattern import text_of_pattern
from aios.errors import InvalidCall, Unsupported

MAX_STEPS = 2_000
MAX_DEPTH = 64
MAX_ITEMS = 1_000
WORD = "text"

_FORMATS = {
    "date": "2024-01-31",
    "time": "12:00:00Z",
    "date-time": "2024-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "a@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format", "discriminator",
    "strict", "$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "contentEncoding", "contentMediaType",
})  # fmt: skip
_UPPER_BOUNDS = frozenset({
    "maxItems", "maxProperties", "additionalProperties", "unevaluatedProperties", "additionalItems",
})  # fmt: skip
_OBJECT = frozenset({"properties", "required", "minProperties"})
_ARRAY = frozenset({"items", "prefixItems", "minItems", "uniqueItems"})
_STRING = frozenset({"minLength", "maxLength", "pattern"})
_NUMBER = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_CHOICES = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
_KNOWN = _ANNOTATIONS | _UPPER_BOUNDS | _OBJECT | _ARRAY | _STRING | _NUMBER | _CHOICES
_IMPLIED = (("object", _OBJECT), ("array", _ARRAY), ("string", _STRING), ("number", _NUMBER))


def example_of(schema: JsonObject, *, seed: int = 0) -> object:
    """A value that the schema allows; the same for the same schema and seed.

    Raises:
        InvalidCall: The schema is malformed or allows nothing.
        Unsupported: It uses a keyword that is not known here, or nests without end.
    """
    return _Maker(schema, seed).make(schema, 0)


class _Maker:
    """One walk through one schema; counts its steps, for a schema can name itself twice at every level."""

    def __init__(self, root: JsonObject, seed: int) -> None:
        self._root = root
        self._seed = seed
        self._n_steps = 0

    def make(self, schema: object, depth: int) -> object:
        """A value for one schema of the tree."""
        self._n_steps += 1
        if depth > MAX_DEPTH or self._n_steps > MAX_STEPS:
            raise Unsupported(
                "the schema nests without end, or too deep",
                hint="give recursion a way out with anyOf",
            )
        if schema is True:
            return {}
        plain = _checked(schema)
        if "$ref" in plain:
            return self.make(self._resolved(plain), depth + 1)
        if "const" in plain:
            return plain["const"]
        if "enum" in plain:
            members = _list(plain, "enum")
            if not members:
                raise InvalidCall("the schema has an empty `enum`")
            return members[self._seed % len(members)]
        for keyword, choose in (("allOf", self._all), ("anyOf", self._any), ("oneOf", self._one)):
            if keyword in plain:
                return choose(plain, depth)
        return self._typed(plain, depth)

    def _typed(self, schema: JsonObject, depth: int) -> object:
        wanted = schema.get("type")
        if isinstance(wanted, list) and wanted:
            wanted = wanted[0]
        if wanted is None:
            wanted = next((name for name, words in _IMPLIED if words & schema.keys()), "object")
        match wanted:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return _string(schema)
            case "number" | "integer":
                return _number(schema)
            case "boolean":
                return bool(self._seed % 2)
            case "null":
                return None
            case _:
                raise InvalidCall(f"the schema has an unknown type: {wanted!r}")

    def _resolved(self, schema: JsonObject) -> JsonObject:
        """The schema that `$ref` names, with what stands beside the reference."""
        reference = schema["$ref"]
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise Unsupported(f"the schema refers to something outside itself: {reference!r}")
        found: object = self._root
        for name in reference.split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise InvalidCall(f"the schema refers to {reference}, which is not in it")
            found = found[key]
        return _merged(_checked(found), _without(schema, "$ref"))

    def _all(self, schema: JsonObject, depth: int) -> object:
        merged = _without(schema, "allOf")
        for part in _list(schema, "allOf"):
            plain = _checked(part)
            while "$ref" in plain:
                self._n_steps += 1
                if self._n_steps > MAX_STEPS:
                    raise Unsupported("the schema refers to itself without end")
                plain = self._resolved(plain)
            merged = _merged(merged, plain)
        return self.make(merged, depth + 1)

    def _any(self, schema: JsonObject, depth: int) -> object:
        """The first option that can be made; those without references first, for they end soonest."""
        options = sorted(_list(schema, "anyOf"), key=lambda option: "$ref" in str(option))
        refused: Unsupported | InvalidCall | None = None
        for option in options:
            try:
                merged = _merged(_without(schema, "anyOf"), _checked(option))
                return self.make(merged, depth + 1)
            except (Unsupported, InvalidCall) as error:
                refused = error
        raise refused or InvalidCall("the schema has an empty `anyOf`")

    def _one(self, schema: JsonObject, depth: int) -> object:
        """An option of `oneOf` whose values cannot fit another one: told apart by type or by the discriminator."""
        options = [_checked(option) for option in _list(schema, "oneOf")]
        base = _without(schema, "oneOf")
        discriminator = schema.get("discriminator")
        if isinstance(discriminator, dict):
            base = _merged(base, {"required": [discriminator.get("propertyName")]})
        elif len(options) > 1 and not _differ_in_type(options):
            raise Unsupported(
                "the schema's `oneOf` has options of one type and no discriminator",
                hint="use anyOf",
            )
        return self._any({**base, "anyOf": options}, depth)

    def _object(self, schema: JsonObject, depth: int) -> object:
        properties = _object_at(schema, "properties")
        names = [name for name in _list(schema, "required") if isinstance(name, str)]
        for name in properties:
            if len(names) >= _size(schema, "minProperties"):
                break
            if name not in names:
                names.append(name)
        if len(names) < _size(schema, "minProperties"):
            raise Unsupported("the schema asks for more properties than it names")
        others = schema.get("additionalProperties", True)
        return {name: self.make(properties.get(name, others), depth + 1) for name in names}

    def _array(self, schema: JsonObject, depth: int) -> object:
        first = _list(schema, "prefixItems")
        n_items = _size(schema, "minItems")
        if n_items > MAX_ITEMS:
            raise Unsupported(f"the schema asks for {n_items} items; {MAX_ITEMS} are made at most")
        rest = schema.get("items", True)
        made: list[object] = []
        for i in range(n_items):
            value = self.make(first[i] if i < len(first) else rest, depth + 1)
            if schema.get("uniqueItems") is True and value in made:
                raise Unsupported("the schema asks for items that all differ")
            made.append(value)
        return made


def _string(schema: JsonObject) -> str:
    low, high = _size(schema, "minLength"), _size(schema, "maxLength", 1 << 30)
    pattern, form = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str):
        text = text_of_pattern(pattern)
    elif isinstance(form, str) and form in _FORMATS:
        text = _FORMATS[form]
    else:
        if low > 1 << 16:
            raise Unsupported(f"the schema asks for a string of {low} characters")
        text = (WORD * (low // len(WORD) + 1))[: max(low, min(len(WORD), high))]
    if not low <= len(text) <= high:
        raise Unsupported("the schema's length and its pattern or format do not go together here")
    return text


def _number(schema: JsonObject) -> int | float:
    step = _fraction(schema, "multipleOf")
    if schema.get("type") == "integer":
        step = Fraction(1) if step is None else step * step.denominator
    if step is not None and step <= 0:
        raise InvalidCall("the schema's `multipleOf` is not positive")
    value = _nearest_to_zero(schema, step)
    return int(value) if value.denominator == 1 else float(value)


def _nearest_to_zero(schema: JsonObject, step: Fraction | None) -> Fraction:
    """The number within the bounds that is nearest to zero, a multiple of `step` if there is one."""
    low, high = _fraction(schema, "minimum"), _fraction(schema, "maximum")
    over, under = _fraction(schema, "exclusiveMinimum"), _fraction(schema, "exclusiveMaximum")
    unit = step or Fraction(1)
    candidates = [Fraction(0)]
    for bound in (low, high, over, under):
        if bound is not None:
            multiple = bound / unit
            candidates += [
                unit * floor(multiple),
                unit * ceil(multiple),
                unit * (floor(multiple) + 1),
            ]
            candidates.append(unit * (ceil(multiple) - 1))
            if step is None:
                candidates.append(bound)
    if step is None and over is not None and under is not None:
        candidates.append((over + under) / 2)
    for value in sorted(candidates, key=abs):
        if (
            (low is None or value >= low)
            and (high is None or value <= high)
            and (over is None or value > over)
            and (under is None or value < under)
        ):
            return value
    raise Unsupported("no number was found between the schema's bounds")


def _differ_in_type(options: list[JsonObject]) -> bool:
    """Whether no value can be of the type of two options. An integer is a number, too."""
    names = [
        "number" if name == "integer" else name
        for name in (option.get("type") for option in options)
    ]
    return all(isinstance(name, str) for name in names) and len(set(map(str, names))) == len(names)


def _checked(schema: object) -> JsonObject:
    if schema is False:
        raise InvalidCall("the schema allows nothing here")
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise InvalidCall(f"a schema is an object or a truth value, not {type(schema).__name__}")
    for keyword in schema:
        if keyword not in _KNOWN and not keyword.startswith("x-"):
            raise Unsupported(f"the scripted engine does not know the schema keyword `{keyword}`")
    return schema


def _merged(first: JsonObject, second: JsonObject) -> JsonObject:
    """Both schemas at once, where that is plain to see."""
    merged = dict(first)
    for keyword, value in second.items():
        old = merged.get(keyword, value)
        if keyword == "required" and isinstance(old, list) and isinstance(value, list):
            merged[keyword] = [*old, *(name for name in value if name not in old)]
        elif keyword == "properties" and isinstance(old, dict) and isinstance(value, dict):
            merged[keyword] = {**old, **value}
        elif old == value or keyword in _ANNOTATIONS:
            merged[keyword] = value
        else:
            raise Unsupported(f"the schema sets `{keyword}` in two places at once")
    return merged


def _without(schema: JsonObject, keyword: str) -> JsonObject:
    return {name: value for name, value in schema.items() if name != keyword}


def _list(schema: JsonObject, keyword: str) -> list[object]:
    found = schema.get(keyword, [])
    if not isinstance(found, list):
        raise InvalidCall(f"the schema's `{keyword}` is not a list")
    return found


def _object_at(schema: JsonObject, keyword: str) -> JsonObject:
    found = schema.get(keyword, {})
    if not isinstance(found, dict):
        raise InvalidCall(f"the schema's `{keyword}` is not an object")
    return found


def _size(schema: JsonObject, keyword: str, default: int = 0) -> int:
    found = _fraction(schema, keyword)
    if found is None:
        return default
    if found < 0 or found.denominator != 1:
        raise InvalidCall(f"the schema's `{keyword}` is not a count")
    return int(found)


def _fraction(schema: JsonObject, keyword: str) -> Fraction | None:
    found = schema.get(keyword)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise InvalidCall(f"the schema's `{keyword}` is not a number")
    return Fraction(str(found))
