"""The calls about mail between processes. What they do is `kernel/mail/post.py`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call, Done
from aios.abi.types import MAX_INT, Count, Pid

LetterId = Annotated[int, Meta(ge=0, le=MAX_INT)]
"""Positive and growing; 0 stands for none."""

Topic = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*(?!\n)$")
]
Body = Annotated[str, Meta(max_length=1 << 18)]


RECEIPT_TOPIC = "receipt"
EXIT_TOPIC = "child.exit"
"""Who subscribes to it gets a letter for each child that ends; its body is a `ChildExit` as JSON."""
SIGNAL_TOPIC = "signal"
KERNEL_TOPICS = (RECEIPT_TOPIC, EXIT_TOPIC, SIGNAL_TOPIC)
"""Only the kernel writes on these."""


class ChildExit(Struct, frozen=True):
    """What a letter on the topic `child.exit` says; `result` is cut at 64 Ki characters."""

    pid: Pid
    name: str
    status: int
    reason: str = ""
    result: str = ""


class Letter(Struct, frozen=True):
    """A message from one process to another. `topic` is set if it was published, `reply_to` names an earlier letter.

    `taint` is where data that had reached its sender came from outside, empty if none had.
    """

    id: LetterId
    sender: Pid
    sender_name: str
    to: Pid
    body: str
    sent_unix_s: float
    topic: str = ""
    reply_to: LetterId = 0
    wants_receipt: bool = False
    is_urgent: bool = False
    wants_dead_letter: bool = False
    taint: str = ""


class Sent(Answer, frozen=True):
    """The letter lies in the other's mailbox, or if `is_dead` with the dead letters."""

    id: LetterId
    is_dead: bool = False


class Send(Call[Sent], frozen=True):
    """Put a letter into the mailbox of a process of the same owner, or of one that has written to the caller.

    A full mailbox refuses the letter, or with `when_full = "wait"` makes the caller wait for room. With `wants_dead_letter` what
    would be refused, comes to a process that has exited, or is not read before its receiver ends becomes a dead letter instead:
    see `DeadLetters`. An urgent letter stands before all that are not, finds room in a full mailbox (for 16 such), and is
    announced with the next answer that its receiver gets: `Result.n_urgent`. With `wants_receipt` a letter on the topic `receipt`
    comes back once this one was read (`read`), or its receiver has ended before (`undelivered`, or `dead`).

    Raises:
        AccessDenied: The receiver belongs to another owner and has not written first.
        Conflict: The receiver has exited, perhaps while the caller waited.
        NotFound: No such process.
        ResourceExhausted: The mailbox is full.
    """

    to: Pid
    body: Body
    reply_to: LetterId = 0
    when_full: Literal["refuse", "wait"] = "refuse"
    wants_receipt: bool = False
    is_urgent: bool = False
    wants_dead_letter: bool = False


class Received(Answer, frozen=True):
    """Letters, the urgent ones first, else oldest first, which are no longer in the mailbox; `n_left` are, whether they match or not."""

    letters: tuple[Letter, ...]
    n_left: Count


class Receive(Call[Received], frozen=True):
    """Take letters out of the caller's mailbox; waits until one matches all that is given.

    `sender`, `topic` and `reply_to` match letters that have just that, `is_urgent` the urgent ones alone; at most `limit` letters
    come. With `is_waiting` false the answer comes at once and may be empty.
    """

    sender: Pid | None = None
    topic: Topic | None = None
    reply_to: LetterId | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1
    is_waiting: bool = True
    is_urgent: bool = False


class Published(Answer, frozen=True):
    """How many mailboxes a letter was put into, and how many were full."""

    n_delivered: Count
    n_refused: Count


class Publish(Call[Published], frozen=True):
    """Send a letter to every process of the same owner that subscribes to a topic, the caller itself excepted.

    Raises:
        InvalidCall: The topic is the kernel's own: `receipt`, `child.exit` or `signal`.
    """

    topic: Topic
    body: Body


Group = Annotated[str, Meta(max_length=512, pattern=r"^((Group|Kind|Program)::[^\n]+)?(?!\n)$")]


class Addressed(Struct, frozen=True):
    """One letter of a broadcast: to whom, and its number."""

    to: Pid
    id: LetterId


class Broadcasted(Answer, frozen=True):
    """The letters that lie in mailboxes, those that became dead letters, and how many mailboxes were full."""

    delivered: tuple[Addressed, ...]
    dead: tuple[Addressed, ...]
    n_refused: Count


class Broadcast(Call[Broadcasted], frozen=True):
    """Send a letter to each living process of a group, the caller itself excepted, as far as it may write to them.

    Groups are those of policies: `Group::"OWNER"` are the processes of an owner, `Kind::"program"` (`task`, `guest`) those of a
    kind, `Program::"/folder"` those of a program, written without quotes. Empty is the caller's own owner's. The letters are on disk
    together or not at all. What the other fields do is told at `Send`.
    """

    body: Body
    group: Group = ""
    wants_receipt: bool = False
    is_urgent: bool = False
    wants_dead_letter: bool = False


class Subscribe(Call[Done], frozen=True):
    """From now on letters on a topic come to the caller's mailbox; with `is_on` false, no longer.

    On the topic `child.exit` the kernel writes of each child that ends, in the name of the child.
    """

    topic: Topic
    is_on: bool = True


class MailboxStatistics(Answer, frozen=True):
    """What waits in the caller's mailbox, and what it may hold."""

    n_letters: Count
    size_bytes: Count
    max_letters: Count
    max_bytes: Count
    topics: tuple[str, ...]


class Mailbox(Call[MailboxStatistics], frozen=True):
    """Ask what waits in the caller's mailbox."""
