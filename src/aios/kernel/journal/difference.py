"""Where two runs part: the first call that is another, or was answered otherwise. Pure.

Two runs of one program never ask and answer by the same bytes: times, numbers that the kernel gives and what else runs there
are in them. So what is compared is the *essence* of calls and answers, also of JSON in their texts: without these, and with one name for the own folder.
"""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import Enum

import msgspec
from msgspec import Struct

from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.errors import InvalidCall
from aios.kernel.journal.records import Outcome
from aios.kernel.journal.tables import Row

RECEIPTS = frozenset({"file_edit", "remember", "update", "send", "publish", "broadcast"})
"""Calls whose answer only says where and under which number something lies now: a branch has a folder and numbers of its own."""
PASSING = frozenset(
    {
        *("pid", "pids", "ppid", "os_pid", "sender", "to", "caller", "provider"),
        *("id", "tool_call_id", "context", "reply_to", "transaction"),
        *("version", "change", "deadline_s", "retry_after_s", "waited_s", "ran_s", "cached_tokens"),
        *("n_preemptions", "n_running", "n_waiting", "n_runs", "n_failed"),
    }
)
"""Fields that are others in each run, beside those that end in `unix_s`: numbers that were given, and what the machine was busy with."""
OWN_FOLDER = "/agents/(own)"


class Parting(Enum):
    """What differs first."""

    CALL = "call"  # they ask for different things
    ANSWER = "answer"  # the same, and are told different things
    END = "end"  # one asks no more


class Difference(Struct, frozen=True):
    """The first difference of two runs."""

    kind: Parting
    n_equal: int
    """Calls before it, which are the same in both."""
    left: Row | None
    right: Row | None


def find_difference(
    left: Sequence[Row], right: Sequence[Row], *, names: Collection[str] = ()
) -> Difference | None:
    """The first difference of two runs, of processes of these names; None if they asked and were told the same in essence.

    Either name stands for the own folder in both runs: a fork was told what its source was told, in whose folder.
    """
    for n_equal, (one, other) in enumerate(zip(left, right, strict=False)):
        if one.record.digest != other.record.digest and _asked(one, names) != _asked(other, names):
            return Difference(Parting.CALL, n_equal, one, other)
        if not _is_told_the_same(one, other, names):
            return Difference(Parting.ANSWER, n_equal, one, other)
    n_equal = min(len(left), len(right))
    if len(left) == len(right):
        return None
    rest = (
        left[n_equal] if len(left) > n_equal else None,
        right[n_equal] if len(right) > n_equal else None,
    )
    return Difference(Parting.END, n_equal, *rest)


def essence(value: object, names: Collection[str]) -> object:
    """What counts of a call or an answer of processes of these names."""
    if not any(names):
        return _essence(value, lambda text: text)
    either = "|".join(map(re.escape, filter(None, names)))
    own = re.compile(rf"/agents/(?:[^/\s\"]+/)*(?:{either})(?![\w.-])")
    return _essence(value, lambda text: own.sub(OWN_FOLDER, text))


def _essence(value: object, read: Callable[[str], str]) -> object:
    match value:
        case str():
            return read(value) if value[:1] not in {"{", "["} else _essence_of_json(value, read)
        case list() | tuple():
            return [_essence(each, read) for each in value]
        case dict():
            passing = PASSING | {"size_bytes"} if "text" in value else PASSING
            kept = ((k, v) for k, v in value.items() if not (k in passing or k.endswith("unix_s")))
            return {k: _essence(v, read) for k, v in kept}
    return value


def _essence_of_json(text: str, read: Callable[[str], str]) -> object:
    """The essence of a text that may be JSON: what tools answer, say."""
    try:
        return _essence(msgspec.json.decode(text), read)
    except (msgspec.DecodeError, RecursionError):
        return read(text)


def _asked(row: Row, names: Collection[str]) -> object:
    """The essence of a call; of one that is not kept or that this version does not know, its digest."""
    if row.intent:
        with suppress(InvalidCall):
            return row.record.call, essence(msgspec.to_builtins(decode_call(row.intent)), names)
    return row.record.digest


def _is_told_the_same(one: Row, other: Row, names: Collection[str]) -> bool:
    if one.record.outcome is not other.record.outcome:
        return False
    is_receipt = one.record.call in RECEIPTS and one.record.outcome is Outcome.DONE
    if is_receipt or one.answer == other.answer:
        return True
    return _told(one, names) == _told(other, names)


def _told(row: Row, names: Collection[str]) -> object:
    """The essence of an answer."""
    if not row.answer:
        return None
    read: Callable[[bytes], object] = decode_answer
    if row.record.outcome is Outcome.FAULT:
        read = decode_fault
    try:
        return essence(msgspec.to_builtins(read(row.answer)), names)
    except InvalidCall:  # of another version of AIOS
        return row.answer
