"""Urgent mail for programs that are busy with something else: it is taken out of the mailbox as soon as any call of theirs returns.

    client = attentive(client, hear)        # from now on `hear(letter)` runs between two calls of this client

The kernel says with each answer how many urgent letters wait, and the journal keeps that: a program that runs again after a
crash hears of the same letters at the same places.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from aios.abi.call import Answer, Call
from aios.abi.gate import Frames, Gate, Progress, Result
from aios.abi.mail import Letter, Receive
from aios.errors import AccessDenied

if TYPE_CHECKING:
    from aios.sdk import blocking
    from aios.sdk.client import Client

TAKEN_AT_ONCE = 100

A = TypeVar("A", bound=Answer)
Hear = Callable[[Letter], Awaitable[None]]
HearBlocking = Callable[[Letter], None]


def attentive(client: "Client", hear: Hear) -> "Client":
    """A client that hears urgent letters: once a call has succeeded, `hear` gets each of them before the call returns.

    What `hear` raises, the call raises. Calls that `hear` makes, by whichever client, bring no letters in the middle of it. A call
    that waits for something is not cut short.
    """
    return type(client)(AttentiveGate(client.gate, hear))


def attentive_blocking(client: "blocking.Client", hear: HearBlocking) -> "blocking.Client":
    """`attentive` for code that waits."""
    return type(client)(BlockingAttentiveGate(client.gate, hear))


class AttentiveGate:
    """A gate that takes urgent letters out after each call. Implements `aios.abi.gate.Gate`."""

    def __init__(self, gate: Gate, hear: Hear) -> None:
        self._gate = gate
        self._hear = hear
        self._is_hearing = False

    async def call(self, call: Call[A]) -> Result[A]:
        """Make a call, and hear what came meanwhile."""
        return await self.attend(await self._gate.call(call))

    @asynccontextmanager
    async def open_call(self, call: Call[A]) -> AsyncIterator[Frames[A]]:
        """Make a call and read its frames; its end brings what came meanwhile."""
        async with self._gate.open_call(call) as frames:
            yield _AttentiveFrames(self, frames)

    async def attend(self, result: Result[A]) -> Result[A]:
        """Take out what is announced with a result, unless a policy forbids it. Returns: the result."""
        n_urgent = 0 if self._is_hearing else result.n_urgent
        while n_urgent:
            self._is_hearing = True
            try:
                try:
                    taken = await self._gate.call(_urgent_letters())
                except AccessDenied:  # the call was made, and is answered
                    return result
                for letter in taken.value.letters:
                    await self._hear(letter)
            finally:
                self._is_hearing = False
            n_urgent = taken.n_urgent
        return result


class _AttentiveFrames(Generic[A]):
    """Frames of a call whose end is heard by a gate."""

    def __init__(self, gate: AttentiveGate, frames: Frames[A]) -> None:
        self._gate = gate
        self._frames = frames

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self._frames.__aiter__()

    async def result(self) -> Result[A]:
        """The end of the call."""
        return await self._gate.attend(await self._frames.result())


class BlockingAttentiveGate:
    """`AttentiveGate` for code that waits. Implements `aios.sdk.blocking.BlockingGate`."""

    def __init__(self, gate: "blocking.BlockingGate", hear: HearBlocking) -> None:
        self._gate = gate
        self._hear = hear
        self._is_hearing = False

    def call(self, call: Call[A]) -> Result[A]:
        """Make a call, and hear what came meanwhile."""
        return self.attend(self._gate.call(call))

    @contextmanager
    def open_call(self, call: Call[A]) -> "Iterator[blocking.BlockingFrames[A]]":
        """Make a call and read its frames; its end brings what came meanwhile."""
        with self._gate.open_call(call) as frames:
            yield _BlockingAttentiveFrames(self, frames)

    def attend(self, result: Result[A]) -> Result[A]:
        """Take out what is announced with a result, unless a policy forbids it. Returns: the result."""
        n_urgent = 0 if self._is_hearing else result.n_urgent
        while n_urgent:
            self._is_hearing = True
            try:
                try:
                    taken = self._gate.call(_urgent_letters())
                except AccessDenied:  # the call was made, and is answered
                    return result
                for letter in taken.value.letters:
                    self._hear(letter)
            finally:
                self._is_hearing = False
            n_urgent = taken.n_urgent
        return result


class _BlockingAttentiveFrames(Generic[A]):
    """Frames of a call whose end is heard by a gate."""

    def __init__(self, gate: BlockingAttentiveGate, frames: "blocking.BlockingFrames[A]") -> None:
        self._gate = gate
        self._frames = frames

    def __iter__(self) -> Iterator[Progress]:
        return iter(self._frames)

    def result(self) -> Result[A]:
        """The end of the call."""
        return self._gate.attend(self._frames.result())


def _urgent_letters() -> Receive:
    return Receive(is_urgent=True, is_waiting=False, limit=TAKEN_AT_ONCE)
