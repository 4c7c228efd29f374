"""What stays the same when a program is run again, and the processes that wait for a decision.

A program that is replayed asks again what it asked before. Its own clock and random numbers would answer otherwise, so it takes
them from here: `await client.repeatable.now()`, `.random_bytes()`, `.uuid()`.
"""

from typing import TYPE_CHECKING
from uuid import UUID

from aios.abi.recovery import AnswerQuestion, Choice, DrawBytes, Now, Question, Questions
from aios.abi.types import Pid
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Repeatable:
    """Times, random numbers and ids that a replay brings again."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def now(self) -> float:
        """The time in seconds since 1970 UTC."""
        return (await self._gate.call(Now())).value.unix_s

    async def random_bytes(self, n_bytes: int = 16) -> bytes:
        """Random bytes, at most 4,096; `random.Random(await client.repeatable.random_bytes())` makes numbers of them."""
        return (await self._gate.call(build(DrawBytes, n_bytes=n_bytes))).value.data

    async def uuid(self) -> UUID:
        """A random UUID."""
        return UUID(bytes=await self.random_bytes(16), version=4)


class BlockingRepeatable:
    """`Repeatable` for code that waits."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def now(self) -> float:
        """The time in seconds since 1970 UTC."""
        return self._gate.call(Now()).value.unix_s

    def random_bytes(self, n_bytes: int = 16) -> bytes:
        """Random bytes, at most 4,096; `random.Random(client.repeatable.random_bytes())` makes numbers of them."""
        return self._gate.call(build(DrawBytes, n_bytes=n_bytes)).value.data

    def uuid(self) -> UUID:
        """A random UUID."""
        return UUID(bytes=self.random_bytes(16), version=4)

    def questions(self) -> tuple[Question, ...]:
        """The descendants that were not started again because somebody must decide."""
        return self._gate.call(Questions()).value.questions

    def answer(self, pid: int, choice: Choice) -> Question:
        """Decide what becomes of one of them.

        Raises:
            Conflict: Nothing is asked about it, or this is no answer to it.
        """
        return self._gate.call(build(AnswerQuestion, pid=Pid(pid), choice=choice)).value
