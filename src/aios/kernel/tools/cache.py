"""Results of pure tools that are given again, by the version of the tool and its arguments. Bounded; the least lately used leave. Pure."""

from collections import OrderedDict
from hashlib import blake2b

import msgspec
from msgspec import Struct

from aios.abi.types import JsonObject

ENTRY_BYTES = 200
"""What an entry takes besides its text."""

CacheKey = bytes
_canonical = msgspec.json.Encoder(order="deterministic")


class Outcome(Struct, frozen=True):
    """What a tool gave back: text, or JSON text."""

    text: str
    is_json: bool = False


class CacheStatistics(Struct, frozen=True):
    """Counters since the kernel began."""

    n_entries: int
    size_bytes: int
    n_hits: int
    n_misses: int


def cache_key(version: str, arguments: JsonObject) -> CacheKey:
    """Equal for equal arguments of the same version of a tool, in whatever order they were given."""
    return blake2b(version.encode() + b"\0" + _canonical.encode(arguments), digest_size=16).digest()


class ResultCache:
    """Outcomes by key."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[CacheKey, Outcome] = OrderedDict()
        self._size_bytes = self._n_hits = self._n_misses = 0

    def find(self, key: CacheKey) -> Outcome | None:
        """The outcome under a key, which is now the one used last."""
        found = self._entries.get(key)
        if found is None:
            self._n_misses += 1
            return None
        self._n_hits += 1
        self._entries.move_to_end(key)
        return found

    def put(self, key: CacheKey, outcome: Outcome) -> None:
        """Keep an outcome; one that is over an eighth of the cache is not worth what it would push out."""
        size_bytes = _size(outcome)
        if size_bytes > self._max_bytes // 8 or key in self._entries:
            return
        self._entries[key] = outcome
        self._size_bytes += size_bytes
        while self._size_bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._size_bytes -= _size(dropped)

    def statistics(self) -> CacheStatistics:
        """Counters; cheap."""
        return CacheStatistics(len(self._entries), self._size_bytes, self._n_hits, self._n_misses)

    def check_invariants(self) -> None:
        """Raise AssertionError if it counts wrong or holds too much."""
        assert self._size_bytes == sum(_size(each) for each in self._entries.values())
        assert self._size_bytes <= self._max_bytes, "the cache holds too much"


def _size(outcome: Outcome) -> int:
    return ENTRY_BYTES + len(outcome.text.encode("utf-8", "surrogatepass"))
