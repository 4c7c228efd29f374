"""Where two runs part: the first call that is another, or was answered otherwise. Pure."""

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from aios.kernel.journal.records import Outcome
from aios.kernel.journal.tables import Row

RECEIPTS = frozenset({"file_edit", "remember", "update", "send", "publish", "broadcast"})
"""Calls whose answer only says where and under which number something lies now: a branch has a folder and numbers of its own."""


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


def find_difference(left: Sequence[Row], right: Sequence[Row]) -> Difference | None:
    """The first difference of two runs; None if they asked and were told the same. Numbers and times are no difference, nor is what stands in receipts."""
    for n_equal, (one, other) in enumerate(zip(left, right, strict=False)):
        if one.record.digest != other.record.digest:
            return Difference(Parting.CALL, n_equal, one, other)
        if _told(one) != _told(other):
            return Difference(Parting.ANSWER, n_equal, one, other)
    n_equal = min(len(left), len(right))
    if len(left) == len(right):
        return None
    rest = (
        left[n_equal] if len(left) > n_equal else None,
        right[n_equal] if len(right) > n_equal else None,
    )
    return Difference(Parting.END, n_equal, *rest)


def _told(row: Row) -> tuple[Outcome, bytes]:
    """What counts of how a call was answered."""
    is_receipt = row.record.call in RECEIPTS and row.record.outcome is Outcome.DONE
    return row.record.outcome, b"" if is_receipt else row.answer
