"""What every system call and every answer has in common; the calls themselves stand in `calls.py` and its neighbours.

`Call[Answer]` ties the two together, so `await gate.call(GetPid())` is typed. A call never carries the pid of its caller:
that comes from the gate or the token.
"""

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct


class Answer(Struct, frozen=True, tag_field="answer", tag=str.lower):
    """Base of what a call gives back."""


A_co = TypeVar("A_co", bound=Answer, covariant=True)

Seconds = Annotated[float, Meta(gt=0, le=7 * 86400)]
ModelName = Annotated[str, Meta(max_length=512)]
Stops = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(max_length=16)
]
MaxTokens = Annotated[int, Meta(ge=1, le=1_000_000)]


class Call(
    Struct,
    Generic[A_co],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="call",
    tag=str.lower,
):
    """Base of every system call. `deadline_s` is the longest that it may take, waits included; None has no limit.

    What has its default is not written, so a field that a later version adds changes nothing about calls that do not use it: they are told
    from each other by their bytes, also when a journal of the version before is replayed.
    """

    deadline_s: Seconds | None = None


class Done(Answer, frozen=True):
    """It is done; there is nothing more to say."""
