"""What functions that a program serves did to its contexts, for a program that runs again: the functions are not, but a conversation is the kernel's. Pure.

A context that a function made and a function closed is left out.
"""

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct

from aios.abi.call import Answer, Call
from aios.abi.contexts import ContextClose, ContextInfo
from aios.abi.types import ContextId
from aios.abi.wire import decode_answer, decode_call
from aios.kernel.journal.records import Outcome
from aios.kernel.journal.tables import Row

MAKING = frozenset({"context_open", "context_fork", "context_restore"})
WRITING = frozenset({
    "chat",
    "context_append",
    "context_close",
    "context_compact",
    "context_fault",
    "context_undo",
}) | MAKING  # fmt: skip


class Work(Struct, frozen=True):
    """A call of a function, and the contexts that it wrote in and made; None: there is none."""

    row: Row
    call: Call[Answer]
    answer: Answer
    context: ContextId | None
    made: ContextId | None


class JobWork:
    """The calls that are not done again yet, by number."""

    def __init__(self, rows: Sequence[Row]) -> None:
        works = [work for row in rows if (work := _work_of(row)) is not None]
        gone = _gone(works)
        self._works = [work for work in works if not gone & {work.context, work.made}]

    def take(self, context: ContextId | None = None, before: int | None = None) -> Work | None:
        """The oldest, which is given once: of those on that context, and of those before that call of the program."""
        for place, work in enumerate(self._works):
            if before is not None and work.row.record.seq > before:
                return None
            if context is None or context in {work.context, work.made}:
                return self._works.pop(place)
        return None


def _work_of(row: Row) -> Work | None:
    record = row.record
    is_done = record.outcome is Outcome.DONE and row.intent
    if not (record.job and is_done and record.call in WRITING):
        return None
    call = decode_call(row.intent)
    context: ContextId | None = getattr(call, "context", None)
    is_making = record.call in MAKING
    if context is None and not is_making:
        return None
    answer: Answer = decode_answer(row.answer)
    made = answer.id if is_making and isinstance(answer, ContextInfo) else None
    return Work(row, call, answer, context, made)


def _gone(works: Sequence[Work]) -> set[ContextId]:
    """Contexts that functions made and closed, and all forks of them."""
    closed = {work.context for work in works if isinstance(work.call, ContextClose)}
    forks: defaultdict[ContextId, set[ContextId]] = defaultdict(set)
    gone = set[ContextId]()
    for work in reversed(works):
        if work.made is None:
            continue
        if work.made in closed and forks[work.made] <= gone:
            gone.add(work.made)
        if work.context is not None:
            forks[work.context].add(work.made)
    return gone
