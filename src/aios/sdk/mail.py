"""Mail for agents: `client.mail.send(pid, "...")`, `await client.mail.receive()`, and the same for plain code."""

from typing import TYPE_CHECKING, Literal

from aios.abi.deadletters import DeadLetterDrop, DeadLetterList, DeadLetters, DeadLetterSend
from aios.abi.mail import (
    Broadcast,
    Broadcasted,
    Letter,
    Mailbox,
    MailboxStatistics,
    Publish,
    Published,
    Receive,
    Received,
    Send,
    Subscribe,
)
from aios.abi.types import Pid
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate

WhenFull = Literal["refuse", "wait"]


class Mail:
    """The mail of the process that a client stands for. Letters arrive once each, in order, and are taken once."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def send(
        self,
        to: int,
        body: str,
        *,
        reply_to: int = 0,
        when_full: WhenFull = "refuse",
        wants_receipt: bool = False,
        is_urgent: bool = False,
        wants_dead_letter: bool = False,
        deadline_s: float | None = None,
    ) -> int:
        """Put a letter into the mailbox of a process; returns the letter's id.

        Args:
            to: The receiver's pid.
            body: At most 256 Ki characters of text.
            reply_to: The id of the letter that this one answers.
            when_full: Whether a full mailbox refuses the letter or makes the caller wait for room.
            wants_receipt: Ask for a letter on the topic `receipt` once this one was read, or cannot be any more.
            is_urgent: Let it stand before letters that are not, and be announced at the receiver's next call (`attentive`).
            wants_dead_letter: Keep it as a dead letter where it cannot be delivered, instead of an error.
            deadline_s: The longest to wait for room.

        Raises:
            AccessDenied: The receiver belongs to another owner and has not written first.
            Conflict: The receiver has exited.
            NotFound: No such process.
            ResourceExhausted: The mailbox is full.
        """
        call = build(
            Send,
            to=Pid(to),
            body=body,
            reply_to=reply_to,
            when_full=when_full,
            wants_receipt=wants_receipt,
            is_urgent=is_urgent,
            wants_dead_letter=wants_dead_letter,
            deadline_s=deadline_s,
        )
        return (await self._gate.call(call)).value.id

    async def receive(
        self,
        *,
        sender: int | None = None,
        topic: str | None = None,
        reply_to: int | None = None,
        is_urgent: bool = False,
        deadline_s: float | None = None,
    ) -> Letter:
        """Wait for the next letter that matches all that is given, and take it.

        Raises:
            DeadlineExceeded: None came within `deadline_s` seconds; nothing was taken.
        """
        call = build(
            Receive,
            sender=sender,
            topic=topic,
            reply_to=reply_to,
            is_urgent=is_urgent,
            deadline_s=deadline_s,
        )
        return (await self._gate.call(call)).value.letters[0]

    async def take(self, limit: int = 100) -> Received:
        """Take what is there, at most `limit` letters, without waiting."""
        return (await self._gate.call(build(Receive, limit=limit, is_waiting=False))).value

    async def reply(self, letter: Letter, body: str, *, when_full: WhenFull = "refuse") -> int:
        """Answer a letter; returns the id of the answer."""
        return await self.send(letter.sender, body, reply_to=letter.id, when_full=when_full)

    async def ask(self, to: int, body: str, *, deadline_s: float | None = None) -> Letter:
        """Send a letter and wait for the answer to it.

        Raises:
            DeadlineExceeded: No answer came within `deadline_s` seconds; the letter was sent.
        """
        letter_id = await self.send(to, body)
        return await self.receive(reply_to=letter_id, deadline_s=deadline_s)

    async def publish(self, topic: str, body: str) -> Published:
        """Send a letter to all processes of the same owner that subscribe to a topic."""
        return (await self._gate.call(build(Publish, topic=topic, body=body))).value

    async def broadcast(
        self,
        body: str,
        group: str = "",
        *,
        is_urgent: bool = False,
        wants_receipt: bool = False,
        wants_dead_letter: bool = False,
    ) -> Broadcasted:
        """Send a letter to each other process of a group: `Group::OWNER`, `Kind::program`, `Program::/folder`; empty is the caller's owner's."""
        call = build(
            Broadcast,
            body=body,
            group=group,
            is_urgent=is_urgent,
            wants_receipt=wants_receipt,
            wants_dead_letter=wants_dead_letter,
        )
        return (await self._gate.call(call)).value

    async def dead(self, *, after: int = 0, limit: int = 1000) -> DeadLetterList:
        """Letters that could not be delivered: those that this process or one below it sent or should have got."""
        return (await self._gate.call(build(DeadLetters, after=after, limit=limit))).value

    async def send_dead(self, letter_id: int, to: int | None = None) -> int:
        """Send a dead letter again, to its receiver or another; returns its new id."""
        call = build(DeadLetterSend, id=letter_id, to=None if to is None else Pid(to))
        return (await self._gate.call(call)).value.id

    async def drop_dead(self, letter_id: int) -> None:
        """Forget a dead letter."""
        await self._gate.call(build(DeadLetterDrop, id=letter_id))

    async def subscribe(self, topic: str, *, is_on: bool = True) -> None:
        """Let letters on a topic come from now on, or no longer."""
        await self._gate.call(build(Subscribe, topic=topic, is_on=is_on))

    async def statistics(self) -> MailboxStatistics:
        """What waits in the mailbox, and what it may hold."""
        return (await self._gate.call(Mailbox())).value


class BlockingMail:
    """`Mail` for code that waits."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def send(
        self,
        to: int,
        body: str,
        *,
        reply_to: int = 0,
        when_full: WhenFull = "refuse",
        wants_receipt: bool = False,
        is_urgent: bool = False,
        wants_dead_letter: bool = False,
        deadline_s: float | None = None,
    ) -> int:
        """Put a letter into the mailbox of a process; returns the letter's id. Errors are those of `Mail.send`."""
        call = build(
            Send,
            to=Pid(to),
            body=body,
            reply_to=reply_to,
            when_full=when_full,
            wants_receipt=wants_receipt,
            is_urgent=is_urgent,
            wants_dead_letter=wants_dead_letter,
            deadline_s=deadline_s,
        )
        return self._gate.call(call).value.id

    def receive(
        self,
        *,
        sender: int | None = None,
        topic: str | None = None,
        reply_to: int | None = None,
        is_urgent: bool = False,
        deadline_s: float | None = None,
    ) -> Letter:
        """Wait for the next letter that matches all that is given, and take it."""
        call = build(
            Receive,
            sender=sender,
            topic=topic,
            reply_to=reply_to,
            is_urgent=is_urgent,
            deadline_s=deadline_s,
        )
        return self._gate.call(call).value.letters[0]

    def take(self, limit: int = 100) -> Received:
        """Take what is there, at most `limit` letters, without waiting."""
        return self._gate.call(build(Receive, limit=limit, is_waiting=False)).value

    def reply(self, letter: Letter, body: str, *, when_full: WhenFull = "refuse") -> int:
        """Answer a letter; returns the id of the answer."""
        return self.send(letter.sender, body, reply_to=letter.id, when_full=when_full)

    def ask(self, to: int, body: str, *, deadline_s: float | None = None) -> Letter:
        """Send a letter and wait for the answer to it."""
        letter_id = self.send(to, body)
        return self.receive(reply_to=letter_id, deadline_s=deadline_s)

    def publish(self, topic: str, body: str) -> Published:
        """Send a letter to all processes of the same owner that subscribe to a topic."""
        return self._gate.call(build(Publish, topic=topic, body=body)).value

    def broadcast(
        self,
        body: str,
        group: str = "",
        *,
        is_urgent: bool = False,
        wants_receipt: bool = False,
        wants_dead_letter: bool = False,
    ) -> Broadcasted:
        """Send a letter to each other process of a group, as `Mail.broadcast`."""
        call = build(
            Broadcast,
            body=body,
            group=group,
            is_urgent=is_urgent,
            wants_receipt=wants_receipt,
            wants_dead_letter=wants_dead_letter,
        )
        return self._gate.call(call).value

    def dead(self, *, after: int = 0, limit: int = 1000) -> DeadLetterList:
        """Letters that could not be delivered, as `Mail.dead`."""
        return self._gate.call(build(DeadLetters, after=after, limit=limit)).value

    def send_dead(self, letter_id: int, to: int | None = None) -> int:
        """Send a dead letter again, to its receiver or another; returns its new id."""
        call = build(DeadLetterSend, id=letter_id, to=None if to is None else Pid(to))
        return self._gate.call(call).value.id

    def drop_dead(self, letter_id: int) -> None:
        """Forget a dead letter."""
        self._gate.call(build(DeadLetterDrop, id=letter_id))

    def subscribe(self, topic: str, *, is_on: bool = True) -> None:
        """Let letters on a topic come from now on, or no longer."""
        self._gate.call(build(Subscribe, topic=topic, is_on=is_on))

    def statistics(self) -> MailboxStatistics:
        """What waits in the mailbox, and what it may hold."""
        return self._gate.call(Mailbox()).value
