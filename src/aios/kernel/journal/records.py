"""What the journal holds of a call, and what is said about calls to keep it. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from msgspec import Struct

from aios.abi.types import Pid

KEY_BYTES = 16


class Effect(Enum):
    """What a call does to the world, which decides how an unsettled intent is settled after a crash."""

    PURE = "pure"  # none: doing it again is harmless
    REVERSIBLE = "reversible"  # can be undone
    COMPENSABLE = "compensable"  # can be made good by another act
    IRREVERSIBLE = "irreversible"


class Where(Enum):
    """Where the effect of a call is to be found, which decides what must be on disk before it."""

    KERNEL = (
        "kernel"  # in the kernel's memory: it is gone with the kernel, and comes back by replay
    )
    DISK = "disk"  # one transaction of the database, which holds the outcome too: both are there or neither
    WORLD = (
        "world"  # outside: nobody can know after a crash, so the intent must be on disk before it
    )


class Outcome(Enum):
    """How a call ended."""

    OPEN = "open"
    DONE = "done"
    FAULT = "fault"
    CANCELLED = "cancelled"
    UNDONE = (
        "undone"  # what it may have done was taken back, or it failed, and its program asks again
    )
    LEFT = "left"  # it was done, and its program, which ran again, went on without asking for it


SKIPPED = frozenset({Outcome.UNDONE, Outcome.LEFT})
"""Those of calls of which no later life of a program is told."""
AGAIN = "again"
UNDO = "undo "


class Link(Struct, frozen=True):
    """One text of a chain: equal texts after equal texts have the same digest, and are stored once."""

    digest: bytes
    data: bytes


class Written(Struct, frozen=True):
    """A call or an answer as it is stored: what is its own, and the messages that it shares with others."""

    head: bytes
    messages: Sequence[Link] | None
    """None: it is one without messages."""
    digest: bytes
    """Of both; equal calls have the same."""


@dataclass(slots=True)
class Record:
    """One call of one process: `seq` counts the journalled calls of that process from 1."""

    pid: Pid
    seq: int
    call: str
    digest: bytes
    effect: Effect
    begun_unix_s: float
    where: Where = Where.WORLD
    outcome: Outcome = Outcome.OPEN
    code: str = ""
    ended_unix_s: float = 0.0
    waited_s: float = 0.0
    ran_s: float = 0.0
    n_preemptions: int = 0
    n_urgent: int = 0
    """Urgent letters that were announced with its answer."""
    intent: Written | None = None
    """Kept until it is on disk."""
    answer: Written | None = None
    """As `intent`; of a fault its frame."""
    is_written: bool = False
    """Its intent is on disk."""
    is_sealed: bool = False
    """The transaction with its effect has the outcome too."""
    within: int = 0
    """The call of the process in the course of which the kernel made it: for a tool of its own, or to undo that call. 0: the program asked."""
    job: int = 0
    """The call of a tool of its program's for whose sake a function asked, by the number of the `ToolJob`; 0: none."""
    cure: str = ""
    """What is done about it if it is cut off in the world: `again`, `undo NAME` of a tool and then again, or nothing."""
    family: str = ""
    """That of its process; not kept."""

    @property
    def is_doubtful(self) -> bool:
        """If nobody knows how it ended, it may have done something, and is not the kernel's own to forget."""
        return self.effect is not Effect.PURE and self.where is Where.WORLD

    @property
    def is_nothing(self) -> bool:
        """Nothing came of it."""
        if self.outcome is Outcome.CANCELLED:
            return not self.is_doubtful
        return self.outcome in {Outcome.FAULT, Outcome.UNDONE}

    @property
    def undo(self) -> str:
        """The tool that undoes it; empty if there is none."""
        return self.cure.removeprefix(UNDO) if self.cure.startswith(UNDO) else ""

    @property
    def key(self) -> str:
        """What the world outside may know this call by: no other has it, and if it is made again as it was, it is the same."""
        told = f"{self.pid} {self.seq} {self.begun_unix_s!r} {self.digest.hex()}"
        return blake2b(told.encode(), digest_size=KEY_BYTES).hexdigest()
