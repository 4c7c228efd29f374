"""How often a schema may have one value looked at, so that no schema keeps the kernel busy for ever. Pure.

Schemas come from programs and servers. Ten lines of them can say that a value fits one of ten, each of which says the same of the next: what checks
them looks 10^12 times, in the kernel's own time. Nobody needs that, so it is counted before it is done.
"""

from collections.abc import Iterator, Mapping

from aios.abi.types import JsonObject

ENOUGH = 1 << 40
"""Counts stop here; what never ends counts as that."""
LISTS, ONES, TABLES = (
    ("allOf", "anyOf", "oneOf"),
    ("not", "if", "then", "else"),
    ("dependentSchemas", "dependencies"),
)
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
REST_OF_OBJECTS = ("additionalProperties", "unevaluatedProperties", "propertyNames")
REST_OF_LISTS = ("items", "contains", "unevaluatedItems", "additionalItems")
TABLE = 16
"""So many numbers are compared while one object or list is."""
AGAIN = ("unevaluatedProperties", "unevaluatedItems")
"""To know what was looked at, all that is said of a value is looked at again."""


class Cost:
    """Counts for one schema."""

    def __init__(self, schema: JsonObject) -> None:
        self._root = schema
        self._known: dict[tuple[int, int, bool], int] = {}
        self._names: dict[str, object] = {}
        for each in _parts(schema):
            for key in ("$anchor", "$dynamicAnchor"):
                self._names[f"#{each.get(key)}"] = each
            self._names[str(each.get("$id"))] = each

    def at(self, depth: int) -> int:
        """How many parts of the schema look at one value so deep inside the whole; at most `ENOUGH`."""
        try:
            return self._looks(self._root, depth)
        except RecursionError:
            return ENOUGH

    def _looks(self, part: object, depth: int) -> int:
        """The most of what a value can be: what is said of objects costs nothing where it is a list."""
        return max(self._looks_at(part, depth, is_list) for is_list in (False, True))

    def _looks_at(self, part: object, depth: int, is_list: bool) -> int:
        if not isinstance(part, Mapping):
            return int(depth == 0)
        key = (id(part), depth, is_list)
        if key not in self._known:
            self._known[key] = ENOUGH  # for one that leads to itself
            n = 0 if depth else self._weight(part)
            said = sum(self._looks_at(each, depth, is_list) for each in self._same(part))
            n += said * self._times(part)
            if depth:
                inside = self._in_list if is_list else self._in_object
                n += inside(part, depth - 1)
            self._known[key] = min(n, ENOUGH)
        return self._known[key]

    def _weight(self, part: Mapping[str, object]) -> int:
        """What is compared with the value itself, one after the other: choices, constants, names that it must have."""
        n = 1 + sum(_size(part[key]) for key in ("enum", "const") if key in part)
        n += len(_listed(part.get("required")))
        return n + sum(1 + len(_listed(each)) for each in _named(part.get("dependentRequired")))

    def _times(self, part: Mapping[str, object]) -> int:
        return 2 if any(key in part for key in AGAIN) else 1

    def _same(self, part: Mapping[str, object]) -> Iterator[object]:
        """What is said of the same value."""
        for key in LISTS:
            yield from _listed(part.get(key))
        yield from (part[key] for key in ONES if key in part)
        for key in TABLES:
            yield from (each for each in _named(part.get(key)) if isinstance(each, Mapping))
        yield from (self._led_to(part[key]) for key in REFERENCES if key in part)

    def _in_object(self, part: Mapping[str, object], depth: int) -> int:
        """What is said of one of the values inside: of those with names of their own only one can be it."""
        own = (self._looks(each, depth) for each in _named(part.get("properties")))
        n = max(own, default=0)
        n += sum(self._looks(each, depth) for each in _named(part.get("patternProperties")))
        return n + sum(self._looks(part[key], depth) for key in REST_OF_OBJECTS if key in part)

    def _in_list(self, part: Mapping[str, object], depth: int) -> int:
        """The same of a list, whose places are their names."""
        places = [*_listed(part.get("prefixItems")), *_listed(part.get("items"))]
        n = max((self._looks(each, depth) for each in places), default=0)
        return n + sum(self._looks(part[key], depth) for key in REST_OF_LISTS if key in part)

    def _led_to(self, reference: object) -> object:
        """Where a reference leads; a strange one to the whole, which counts as what never ends if it is said of the same value."""
        name = str(reference)
        if name in self._names:
            return self._names[name]
        start, _, pointer = name.partition("#")
        found: object = self._names.get(start, self._root)
        for word in filter(None, pointer.split("/")):
            key = word.replace("%25", "%").replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
        return found


def count_patterns(schema: JsonObject) -> int:
    """How many regular expressions there may be in a schema."""
    parts = [*_parts(schema)]
    named = sum(len(_named(each.get("patternProperties"))) for each in parts)
    return named + sum("pattern" in each for each in parts)


def _parts(value: object) -> Iterator[Mapping[str, object]]:
    ahead = [value]
    while ahead:
        each = ahead.pop()
        if isinstance(each, Mapping):
            yield each
            ahead += each.values()
        elif isinstance(each, list):
            ahead += each


def _size(value: object) -> int:
    """How long it takes to compare something with a value; a table takes longer than a number."""
    n, ahead = 0, [value]
    while ahead:
        each = ahead.pop()
        if isinstance(each, Mapping | list):
            n += TABLE
            ahead += each.values() if isinstance(each, Mapping) else each
        else:
            n += 1
    return n


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _named(value: object) -> list[object]:
    return [*value.values()] if isinstance(value, Mapping) else []
