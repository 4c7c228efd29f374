"""What becomes of a process after the kernel or its program ended. Pure: `programs.py` does what is decided here."""

from collections.abc import Callable, Sequence
from enum import Enum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from aios.abi.gate import Fault
from aios.abi.recovery import Choice, Restart
from aios.abi.types import Exit, Kind
from aios.errors import (
    DeadlineExceeded,
    DiskFailed,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    ModelMissing,
    OutcomeUnknown,
    ProgramFailed,
    RateLimited,
    ResourceExhausted,
    ToolFailed,
)
from aios.kernel.journal.records import Effect, Outcome, Record, Where

MAX_DELAY_S = 60.0
STEADY_S = 60.0
"""A program that ran so long has recovered: its crashes are counted anew."""
LOST_STATUS = 137
NO_JOURNAL = (
    "no journal is kept (`journal.is_on` is false), so the next kernel knows no process of this one"
)
"""What a daemon says that will not be gone on from, to its owner; `NOT_BACK` to a program that asks for it."""
NOT_BACK = "this kernel keeps no journal: it starts this program again when it crashes, but the next kernel does not bring it back"
ENDED_WITH_KERNEL = "ended with its kernel"
CODE_CHANGED = "its code has changed since it began"
CODE_CHOICES: tuple[Choice, ...] = ("replay", "fresh", "end")
"""What may be answered to that."""

PASSING = frozenset(
    error.code
    for error in (
        DeadlineExceeded,
        DiskFailed,
        EngineFailed,
        EngineRefused,
        EngineUnavailable,
        ModelMissing,
        ProgramFailed,
        RateLimited,
        ResourceExhausted,
        ToolFailed,
    )
)
"""Faults that may be over when a program asks again."""
FOLLOWING = frozenset({"file_watch", "logs"})
"""Calls that are on disk before they end only if they follow what comes: they are made again, and begin where they began."""
CLEANING = frozenset({"context_close", "file_unlock", "log", "tool_unregister"})
"""What a program that fails still asks on its way out."""


class Settling(Enum):
    """What is done about an intent without an outcome."""

    AGAIN = "again"  # nothing of it is there: the program asks again
    CURE = "cure"  # it may have happened; when the program asks again, it is undone or harmless, and made again
    UNKNOWN = "unknown"  # it may have happened; it is not done twice, and the program is told so
    ASK = "ask"  # only a person can know


def settled(record: Record) -> Settling:
    """What an open record means after a crash.

    What was only in the kernel's memory is gone, and what is in the database came with its outcome: without one, nothing happened. In
    the world it may have happened. What its tool says how to undo, or that it may be made twice, is cured; else what can be made good is not
    risked twice, and what cannot is a person's decision. An undo that was cut off is made anew with the call that it is for; what a function
    asked for that the program serves as a tool is not asked for again.
    """
    assert record.outcome is Outcome.OPEN, f"{record} is settled already"
    if record.within:
        return Settling.AGAIN
    if record.job:
        return Settling.UNKNOWN if record.is_doubtful else Settling.AGAIN
    if record.cure and record.where is Where.WORLD:
        return Settling.CURE
    if not record.is_doubtful:
        return Settling.AGAIN
    return Settling.ASK if record.effect is Effect.IRREVERSIBLE else Settling.UNKNOWN


def end_of_open(record: Record, *, is_again: bool) -> Fault | Outcome | None:
    """What a program is told of a call that the kernel's end cut off; None: it makes it again. `is_again`: its owner said so."""
    settling = settled(record)
    if settling is Settling.CURE or record.call in FOLLOWING:
        return Outcome.CANCELLED
    if is_again or settling is Settling.AGAIN:
        return None
    return Fault(
        OutcomeUnknown.code,
        f"the kernel ended in the middle of {record.call} (call {record.seq}); it may have happened, and is not done again",
        "look whether it happened before asking again",
    )


def failed_of(records: Sequence[Record]) -> list[Record]:
    """The calls by whose faults a program crashed, and what it asked on its way out: told the same again, it would only crash again.

    That is the last one from whose error it did not go on, with those that failed beside it, if none of them has done anything and the faults
    are of a kind that passes. What other tasks asked before it failed may have ended behind it; a program that serves functions takes calls
    until it is gone.
    """
    own = [each for each in records if not (each.within or each.job or _is_taking(each))]
    told = [each for each in own if each.outcome in {Outcome.DONE, Outcome.FAULT}]
    told.sort(key=lambda each: (each.ended_unix_s, each.seq), reverse=True)
    found, failed, last_begun_s = list[Record](), list[Record](), -inf
    for record in told:
        since_s = failed[0].begun_unix_s if failed else last_begun_s
        if record.ended_unix_s <= since_s:
            break
        if record.code in PASSING and not record.is_doubtful:
            if not _is_gone_on_from(record, own):
                failed.append(record)
                found.append(record)
        elif record.call not in CLEANING:
            last_begun_s = max(last_begun_s, record.begun_unix_s)
        elif not failed:
            found.append(record)
    return found if failed else []


def _is_taking(record: Record) -> bool:
    """Whether it waited for calls of served functions, and no more."""
    return record.call == "tool_take" and record.outcome is not Outcome.FAULT


def _is_gone_on_from(failed: Record, own: Sequence[Record]) -> bool:
    """Whether its program asked for something else behind it, be it cut off."""
    later = (
        each for each in own if each.seq > failed.seq and each.begun_unix_s >= failed.ended_unix_s
    )
    return any(each.outcome is not Outcome.UNDONE and each.call not in CLEANING for each in later)


class Fate(Enum):
    """What becomes of a process that was alive when the kernel ended."""

    END = "end"
    STAY = "stay"  # its program is somewhere else and comes back by itself, or is the owner
    START = "start"
    ASK = "ask"


class Verdict(Struct, frozen=True):
    """A fate and its reason; where the owner is asked, what may be answered."""

    fate: Fate
    why: str = ""
    choices: tuple[Choice, ...] = ()


def policy_below(restart: Restart, parent: Restart | None) -> Restart:
    """The policy of a program that a process spawns: one that goes with a parent which never comes back does not, either."""
    if restart.policy != "with-parent" or (parent is not None and parent.policy != "never"):
        return restart
    return replace(restart, policy="never")


def fate_of(
    kind: Kind,
    restart: Restart,
    open_records: Sequence[Record],
    *,
    is_code_changed: bool,
    is_parent_back: bool,
    name: Callable[[Record], str] = lambda record: record.call,
) -> Verdict:
    """What becomes of a process. `is_parent_back`: its parent is a program that is started again, or waits to be. `name` says what a call was for."""
    if kind in {Kind.INIT, Kind.GUEST}:
        return Verdict(Fate.STAY)
    is_alone = restart.policy == "with-parent" and not is_parent_back
    if kind is Kind.TASK or restart.policy == "never" or is_alone:
        return Verdict(Fate.END, ENDED_WITH_KERNEL)
    asked = [record for record in open_records if settled(record) is Settling.ASK]
    if asked:
        calls = ", ".join(f"{name(record)} (call {record.seq})" for record in asked)
        why = (
            f"the kernel ended in the middle of {calls}; it may have happened, and cannot be undone"
        )
        return Verdict(Fate.ASK, why, ("again", "done", "fresh", "end"))
    if is_code_changed:
        return Verdict(Fate.ASK, CODE_CHANGED, CODE_CHOICES)
    return Verdict(Fate.START)


class Life(Struct, frozen=True):
    """How a program ran this time."""

    end: Exit
    ran_s: float
    n_crashes: int
    """In a row, before this one."""
    is_ended_on_purpose: bool
    """It asked to exit, or was killed."""
    is_killed: bool = False
    wants_fresh: bool = False
    """It diverged, and is to begin anew."""


class Next(Struct, frozen=True):
    """Start it again: after how long, with how many crashes counted, from the journal or from the beginning."""

    delay_s: float
    n_crashes: int
    is_replayed: bool


def next_life(restart: Restart, life: Life) -> Next | None:
    """Whether a program whose kernel lives is started again; None: it has ended."""
    if life.is_killed or restart.policy == "never":
        return None
    has_crashed = bool(life.end.status) and not life.is_ended_on_purpose
    if restart.policy == "with-parent" and not life.wants_fresh:
        return None
    if not has_crashed and not life.wants_fresh:
        return Next(restart.delay_s, 0, is_replayed=False) if restart.policy == "always" else None
    n_crashes = 1 if life.ran_s >= STEADY_S else life.n_crashes + 1
    if n_crashes > restart.max_restarts:
        return None
    delay_s = min(MAX_DELAY_S, restart.delay_s * 2.0 ** min(n_crashes - 1, 32))
    return Next(delay_s, n_crashes, is_replayed=not life.wants_fresh)
