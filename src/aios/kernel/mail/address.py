"""Where the mail of a process goes, and what is said to those whose letters do not get there."""

from dataclasses import dataclass, field

import msgspec

from aios.abi.mail import Broadcast, Letter, Send
from aios.abi.types import Pid
from aios.errors import Conflict, ResourceExhausted
from aios.kernel.mail.box import Box
from aios.kernel.process import Process
from aios.kernel.waitqueue import WaitQueue


@dataclass
class Address:
    """Where the mail of a living process goes."""

    box: Box
    topics: dict[str, None] = field(default_factory=dict)
    correspondents: set[Pid] = field(default_factory=set)
    """Who has written: they may be answered, whoever owns them."""
    waiting: dict[bool, dict[int, Process]] = field(default_factory=lambda: {False: {}, True: {}})
    """Letters that wait for room and their senders, first come first in; urgent ones (True) among themselves."""
    changed: WaitQueue = field(default_factory=WaitQueue)
    """Those who wait for a letter or for room."""

    def can_take(self, letter: Letter) -> bool:
        """Whether there is room, and nobody waits for it who was first; who is stopped is passed over until it goes on."""
        queue = self.waiting[letter.is_urgent]
        first = next((each for each, sender in queue.items() if not sender.is_stopped), letter.id)
        return first == letter.id and self.box.has_room(letter)

    def take_back(self, letter: Letter) -> None:
        """A letter goes unread, if it is still there; who waits for room looks again."""
        self.box.drop(letter)
        self.changed.wake_all()


Delivery = tuple[Address, Letter]


def marked(letter: Letter, call: Send | Broadcast) -> Letter:
    """The letter as its sender wants it treated."""
    return msgspec.structs.replace(
        letter,
        wants_receipt=call.wants_receipt,
        is_urgent=call.is_urgent,
        wants_dead_letter=call.wants_dead_letter,
    )


def same_signal(letter: Letter, other: Letter) -> bool:
    """Whether two letters bring the same signal."""
    return (letter.topic, letter.sender, letter.body) == (other.topic, other.sender, other.body)


def ended(receiver: Process) -> Conflict:
    """The error for a letter to a process that has exited."""
    return Conflict(
        f"process {receiver.pid} ({receiver.name}) has exited and gets no more mail",
        hint="`aios ps` lists those that live",
    )


def full(receiver: Process, box: Box) -> ResourceExhausted:
    """The error for a letter to a full mailbox."""
    return ResourceExhausted(
        f"the mailbox of process {receiver.pid} ({receiver.name}) is full: {len(box)} letters, {box.size_bytes} bytes",
        hint='try again later, or wait for room with `when_full = "wait"`',
        retry_after_s=1.0,
    )
