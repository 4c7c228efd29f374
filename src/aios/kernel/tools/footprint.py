"""What a call of a tool reads and writes, worked out from its arguments. Pure.

A template is a path (`/shared/{name}`; `~/{path}` is below the caller's folder, unless the argument is absolute) or a name of a
resource (`db/{table}`). Both are hierarchies with `/` between the parts, and a claim covers all that is below it. Where an
argument is missing, the claim ends before the part that would hold it: rather too much than too little.
"""

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

Key = tuple[str, ...]
"""The parts of a path, the first of which is empty, or of a name. The empty key covers everything."""

MAX_KEYS = 256
"""Claims that one template may expand to; beyond it, the claim ends before the part with the list."""
MAX_TEMPLATES = 4_096
"""Of which it is kept how they are read."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Footprint(Struct, frozen=True):
    """What one call reads and writes."""

    reads: frozenset[Key] = frozenset()
    writes: frozenset[Key] = frozenset()

    def conflicts(self, other: "Footprint") -> bool:
        """Whether the two must not run at once. Cost: the product of their sizes; `Claims` looks up instead."""
        return (
            _any_overlap(self.writes, other.writes)
            or _any_overlap(self.writes, other.reads)
            or _any_overlap(self.reads, other.writes)
        )


def footprint(
    reads: Iterable[str], writes: Iterable[str], arguments: Mapping[str, object], home: str
) -> Footprint:
    """The footprint of a call.

    Args:
        reads: Templates of what it reads.
        writes: Templates of what it writes.
        arguments: The checked arguments.
        home: The caller's folder, for `~`.
    """
    return Footprint(
        frozenset(key for template in reads for key in expand(template, arguments, home)),
        frozenset(key for template in writes for key in expand(template, arguments, home)),
    )


def expand(template: str, arguments: Mapping[str, object], home: str) -> list[Key]:
    """The keys of one template. An argument that is a list makes a key for each of its items."""
    is_home, parts = _parsed(template)
    texts = [""]
    for part in parts:
        found = _fill(part, arguments)
        if found is None or len(found) * len(texts) > MAX_KEYS:
            texts = [f"{text}/" for text in texts]
            break
        texts = [f"{text}/{each}" for text in texts for each in found]
    # Each text begins with the slash that joins it to nothing.
    return [key_of(text[1:], home if is_home else "") for text in texts]


def key_of(text: str, home: str = "") -> Key:
    """The key of a path or name; with `home`, a path that is relative to it unless it is absolute."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if home and not folded.startswith("/"):
        folded = f"{home}/{folded}"
    if folded.startswith("/"):
        plain = posixpath.normpath(folded).lstrip("/")
        return ("", *plain.split("/")) if plain else ("",)
    return tuple(part for part in folded.split("/") if part)


def overlap(one: Key, other: Key) -> bool:
    """Whether one covers the other."""
    n = min(len(one), len(other))
    return one[:n] == other[:n]


def shown(key: Key) -> str:
    """A key as people write it."""
    return "/".join(key) or ("/" if key else "everything")


@lru_cache(MAX_TEMPLATES)
def _parsed(template: str) -> tuple[bool, tuple[tuple[str, ...], ...]]:
    """Whether a template is below the caller's folder, and its parts: of each the text before an argument, its name, and so on, and the text at the end."""
    is_home = template.startswith("~/")
    parts = (template[2:] if is_home else template).split("/")
    return is_home, tuple(tuple(_PLACEHOLDER.split(part)) for part in parts)


def _fill(part: tuple[str, ...], arguments: Mapping[str, object]) -> list[str] | None:
    """A part of a template with arguments put in; None when one of them is missing."""
    texts = [part[0]]
    for name, after in zip(part[1::2], part[2::2], strict=True):
        values = _values(arguments.get(name))
        if values is None:
            return None
        texts = [f"{text}{value}{after}" for text in texts for value in values][: MAX_KEYS + 1]
    return texts


def _values(value: object) -> list[str] | None:
    if isinstance(value, list):
        return [str(each) for each in value] or None
    return None if value is None else [str(value)]


def _any_overlap(ours: Iterable[Key], theirs: frozenset[Key]) -> bool:
    return any(overlap(one, other) for one in ours for other in theirs)
