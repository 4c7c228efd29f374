"""The calls about letters that could not be delivered. What they do is `kernel/mail/dead.py` and `kernel/mail/post.py`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call, Done
from aios.abi.mail import Letter, LetterId, Sent
from aios.abi.types import Pid

WhyDead = Literal["full", "exited", "unread"]


class DeadLetter(Struct, frozen=True):
    """A letter and why it lies here: its mailbox was `full`, its receiver had `exited`, or ended with it `unread`."""

    letter: Letter
    why: WhyDead
    died_unix_s: float


class DeadLetterList(Answer, frozen=True):
    """Dead letters in the order of their numbers; `next_id` is the `after` of the next page, None at the end."""

    letters: tuple[DeadLetter, ...]
    next_id: LetterId | None


class DeadLetters(Call[DeadLetterList], frozen=True):
    """Read the dead letters that the caller or one of its descendants sent or should have got; the owner reads all.

    There is room for as many as in one mailbox; beyond that the oldest go.
    """

    after: LetterId = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class DeadLetterSend(Call[Sent], frozen=True):
    """Put a dead letter into the mailbox of its receiver, or of another, in the name of its sender and under a new number.

    Raises:
        AccessDenied: The caller may not write to the receiver.
        Conflict: The receiver has exited.
        NotFound: No such dead letter that the caller sees, or no such process.
        ResourceExhausted: The mailbox is full.
    """

    id: LetterId
    to: Pid | None = None


class DeadLetterDrop(Call[Done], frozen=True):
    """Forget a dead letter.

    Raises:
        NotFound: No such dead letter that the caller sees.
    """

    id: LetterId
