"""The calls about the journal: what processes asked of the kernel, and what came of it. What they do is `kernel/inspection.py`."""

from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count, JsonObject, Pid, SomeInt


class Recorded(Struct, frozen=True):
    """One call as the journal has it.

    `outcome` is `open`, `done`, `fault` (then `code` says which), `cancelled`, `undone` (it was cut off, and what it may have done was taken back)
    or `left` (it was done, and its program, which ran again and asked otherwise, went on without it). `within` is the call in the course of which the kernel made it, for a tool of its own or to undo that call; 0: the process asked. `job` is the call of a tool (`ToolJob.id`) for which a function
    asked that the process serves, if one did. `effect` what the call does to the world:
    `pure`, `reversible`, `compensable` or `irreversible`. `intent` is the call and `answer` its answer, as JSON objects, both
    empty where nobody asked for them; a call over 64 KiB has none.
    """

    pid: Pid
    seq: int
    call: str
    effect: str
    outcome: str
    begun_unix_s: float
    ended_unix_s: float | None
    waited_s: float = 0.0
    ran_s: float = 0.0
    n_preemptions: int = 0
    code: str = ""
    intent: JsonObject = {}
    answer: JsonObject = {}
    within: int = 0
    job: int = 0


class JournalRecords(Answer, frozen=True):
    """Records in order; `next_seq` is the `after` of the next page, None at the end. `is_on_disk`: they survive the kernel."""

    records: tuple[Recorded, ...]
    next_seq: int | None
    is_on_disk: bool


class JournalRead(Call[JournalRecords], frozen=True, tag="journal_read"):
    """Read the records of a process behind the one numbered `after`; with `is_full` also what was asked and answered.

    A page ends early when it gets long. With a negative `after` of -n, it begins at the last n records.
    """

    pid: Pid
    after: SomeInt = 0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    is_full: bool = False


class Event(Struct, frozen=True):
    """Something that happened: a call that ended (`what` is its name, `record` it), or what became of a process."""

    number: int
    pid: Pid
    unix_s: float
    what: str
    detail: str = ""
    record: Recorded | None = None


class EventList(Answer, frozen=True):
    """Events in order. `last` is the `after` of the next call; `n_missed` before the first were dropped meanwhile.

    With `is_restarted` the event `after` was of a kernel before this one, whose others are gone: its calls are in the journal.
    """

    events: tuple[Event, ...]
    last: int
    n_missed: Count
    is_restarted: bool = False


class Events(Call[EventList], frozen=True):
    """Ask what happened to the processes that the caller may see, behind event `after`; without `after` from now on.

    With `pid` only to that one and those below it; with `has_text` also what models say, in pieces (`what` is `piece`, `detail` the
    text). Waits until there is something, unless `is_waiting` is false. The kernel keeps the last events only: who reads too slowly
    is told how many were missed. Numbers grow from one kernel of a home to the next.
    """

    after: Count | None = None
    pid: Pid | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    is_waiting: bool = True
    has_text: bool = False
