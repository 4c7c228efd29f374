"""The post office: puts letters into mailboxes, and lets their owners wait for them.

A letter is in exactly one place: with its sender, in one mailbox, or with its receiver. Between looking into a mailbox and
taking a letter out nothing waits, so two calls never get the same one; a call that is cancelled has taken nothing. Who has
exited has no mailbox, and nothing that is sent can bring it back: its letters are dead letters, if their senders want that.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import apsw
import msgspec
from msgspec import Struct

from aios.abi.call import Answer, Done
from aios.abi.deadletters import DeadLetter, DeadLetterSend, WhyDead
from aios.abi.mail import (
    EXIT_TOPIC,
    KERNEL_TOPICS,
    RECEIPT_TOPIC,
    SIGNAL_TOPIC,
    Addressed,
    Broadcast,
    Broadcasted,
    ChildExit,
    Letter,
    Mailbox,
    MailboxStatistics,
    Publish,
    Published,
    Receive,
    Received,
    Send,
    Sent,
    Subscribe,
)
from aios.abi.types import Exit, Pid
from aios.config import KernelConfig
from aios.errors import AccessDenied, AiosError, InvalidCall, ResourceExhausted
from aios.kernel.access.entities import groups_of
from aios.kernel.access.manager import AccessManager, principal_of
from aios.kernel.clock import Clock
from aios.kernel.journal.disk import Extra, JournalDisk
from aios.kernel.mail import marks, tables
from aios.kernel.mail.address import Address, Delivery, ended, full, marked, same_signal
from aios.kernel.mail.box import Box, Match
from aios.kernel.mail.dead import DeadBox, DeadLetterOffice
from aios.kernel.process import Process, Run
from aios.kernel.process_table import ProcessTable

MAX_RESULT_CHARS = 1 << 16
MAX_TOPICS = 256
"""Topics that one process may subscribe to."""


class Before(Struct, frozen=True):
    """What a process has of mail when it begins."""

    letters: Sequence[Letter]
    topics: Sequence[str]
    correspondents: Sequence[Pid]


class PostStatistics(Struct, frozen=True):
    """Counters since the kernel began."""

    n_sent: int
    n_received: int
    n_refused: int
    n_undelivered: int
    n_waiting: int


class PostOffice:
    """The handlers of the calls about mail."""

    def __init__(
        self,
        table: ProcessTable,
        access: AccessManager,
        clock: Clock,
        limits: KernelConfig,
        *,
        disk: JournalDisk | None = None,
    ) -> None:
        self._disk = disk
        self._table = table
        self._access = access
        self._clock = clock
        self._limits = limits
        self._addresses: dict[Pid, Address] = {}
        self._last_id = 0
        room = DeadBox(limits.max_mailbox_letters, limits.max_mailbox_bytes)
        self.dead = DeadLetterOffice(room, table, access, disk=disk)
        self._n_sent = self._n_received = self._n_refused = self._n_undelivered = 0

    async def send(self, run: Run, call: Send) -> Sent:
        """Put a letter into somebody's mailbox."""
        receiver = self._table.get(call.to)
        self._check(run.process, receiver)
        letter = marked(
            self._letter(run.process, receiver, call.body, reply_to=call.reply_to), call
        )
        why = self._hindrance(receiver, letter)
        if why == "full" and call.when_full == "wait":
            letter, why = await self._wait_for_room(run, receiver, letter)
        if why is not None and not call.wants_dead_letter:
            raise self._refused(receiver, why)
        answer = Sent(letter.id, is_dead=why is not None)
        if why is None:
            await self._keep_letters(run, [self._deliver(receiver, letter)], answer)
        else:
            await self._keep_letters(run, [], answer, buried=[self._died(letter, why)])
        return answer

    async def send_dead(self, run: Run, call: DeadLetterSend) -> Sent:
        """Put a dead letter into a mailbox after all."""
        dead = self.dead.get(run.process, call.id)
        receiver = self._table.get(dead.letter.to if call.to is None else call.to)
        self._check(run.process, receiver)
        letter = msgspec.structs.replace(dead.letter, id=self._next_id(), to=receiver.pid)
        if (why := self._hindrance(receiver, letter)) is not None:
            raise self._refused(receiver, why)
        delivery, answer = self._deliver(receiver, letter), Sent(letter.id)
        await self._keep_letters(run, [delivery], answer, revived=[call.id])
        return answer

    async def broadcast(self, run: Run, call: Broadcast) -> Broadcasted:
        """Send a letter to all of a group to whom the caller may write; about each of them nobody is asked."""
        sender, n_refused, may_write_to = run.process, 0, self._access.may_write_to
        group = call.group or f"Group::{sender.owner}"
        delivered, buried = list[Delivery](), list[DeadLetter]()
        for receiver in list(self._table):
            is_meant = receiver is not sender and receiver.exiting is None
            if not is_meant or group not in groups_of(principal_of(receiver)):
                continue
            if not self._knows(sender, receiver) or not may_write_to(sender, receiver):
                continue
            letter = marked(self._letter(sender, receiver, call.body), call)
            if (why := self._hindrance(receiver, letter)) is None:
                delivered.append(self._deliver(receiver, letter))
            elif call.wants_dead_letter:
                buried.append(self._died(letter, why))
            else:
                n_refused += 1
        self._n_refused += n_refused
        answer = Broadcasted(
            tuple(Addressed(letter.to, letter.id) for _, letter in delivered),
            tuple(Addressed(each.letter.to, each.letter.id) for each in buried),
            n_refused,
        )
        await self._keep_letters(run, delivered, answer, buried=buried)
        return answer

    async def receive(self, run: Run, call: Receive) -> Received:
        """Take letters out of the caller's mailbox, waiting for one if need be."""
        address = self._address(run.process)
        match = Match(call.sender, call.topic, call.reply_to, call.is_urgent)
        while True:
            letters = address.box.take(match, call.limit)
            if letters or not call.is_waiting:
                break
            with run.parked():
                await address.changed.wait()
            await run.runnable()
        self._n_received += len(letters)
        marks.take_all(run, letters)  # before the write that has the answer
        receipts = [receipt for letter in letters if (receipt := self._acknowledge(letter, "read"))]
        answer = Received(letters, len(address.box))
        await self._take_letters(run, address, receipts=receipts, answer=answer)
        if letters:
            address.changed.wake_all()
        return answer

    async def publish(self, run: Run, call: Publish) -> Published:
        """Send a letter to all of the caller's owner who subscribe to a topic."""
        if call.topic in KERNEL_TOPICS:
            hint = f"choose another than {', '.join(KERNEL_TOPICS)}"
            raise InvalidCall(f"the kernel alone writes on the topic {call.topic!r}", hint=hint)
        sender, n_refused, delivered = run.process, 0, list[tuple[Address, Letter]]()
        for pid, address in list(self._addresses.items()):
            receiver = self._table.get(pid)
            if call.topic not in address.topics or receiver is sender:
                continue
            if receiver.owner != sender.owner or not self._access.may_write_to(sender, receiver):
                continue
            letter = self._letter(sender, receiver, call.body, topic=call.topic)
            if not address.can_take(letter):
                n_refused += 1
                continue
            delivered.append(self._deliver(receiver, letter))
        self._n_refused += n_refused
        answer = Published(len(delivered), n_refused)
        await self._keep_letters(run, delivered, answer)
        return answer

    async def subscribe(self, run: Run, call: Subscribe) -> Done:
        """Let letters on a topic come, or no longer."""
        topics = self._address(run.process).topics
        if call.is_on and call.topic not in topics and len(topics) >= MAX_TOPICS:
            raise ResourceExhausted(
                f"process {run.process.pid} subscribes to {len(topics)} topics, the limit is {MAX_TOPICS}",
                hint="leave some, with `is_on` false",
            )
        if self._disk is not None:
            pid = run.process.pid

            def write(connection: apsw.Connection) -> None:
                tables.set_topic(connection, pid, call.topic, is_on=call.is_on)
                run.sealed(connection, Done())

            await self._disk.write(write)
        if call.is_on:
            topics[call.topic] = None
        else:
            topics.pop(call.topic, None)
        return Done()

    async def signal(
        self, run: Run, receivers: Sequence[Process], text: str, answer: Answer
    ) -> None:
        """Put a signal into mailboxes, full ones too; where the caller's last such signal was not read yet, that one stands for both."""
        delivered = list[Delivery]()
        for receiver in receivers:
            letter = self._letter(run.process, receiver, text, topic=SIGNAL_TOPIC)
            if not any(same_signal(each, letter) for each in self._address(receiver).box):
                delivered.append(self._deliver(receiver, letter))
        await self._keep_letters(run, delivered, answer)

    def tell_exit(self, process: Process, end: Exit) -> Extra:
        """Write to the parent of a process that ended, if it subscribes to that. Returns: what brings the letter to disk."""
        parent = self._table.find(process.ppid)
        address = self._addresses.get(process.ppid)
        if parent is None or parent.exiting is not None or address is None:
            return _nothing
        if EXIT_TOPIC not in address.topics:
            return _nothing
        told = ChildExit(
            process.pid, process.name, end.status, end.reason, end.result[:MAX_RESULT_CHARS]
        )
        letter = self._letter(process, parent, msgspec.json.encode(told).decode(), topic=EXIT_TOPIC)
        self._deliver(parent, letter)
        return lambda connection: tables.put(connection, [letter])

    async def mailbox(self, run: Run, _: Mailbox) -> MailboxStatistics:
        """What waits in the caller's mailbox."""
        address = self._address(run.process)
        box = address.box
        topics = tuple(sorted(address.topics))
        return MailboxStatistics(len(box), box.size_bytes, box.max_letters, box.max_bytes, topics)

    def number(self, n_letters: int) -> range:
        """So many numbers that no other letter gets."""
        self._last_id += n_letters
        return range(self._last_id - n_letters + 1, self._last_id + 1)

    def take_over(self, process: Process, before: "Before") -> None:
        """Give a process, which has no mail of its own yet, what is on disk as its mail already."""
        address = self._address(process)
        address.box.put_back(before.letters)
        self._n_sent += len(before.letters)
        address.topics.update(dict.fromkeys(before.topics))
        address.correspondents.update(before.correspondents)

    def withdraw(self, senders: Sequence[Pid]) -> None:
        """Take letters out of the mailboxes of others that these have written and nobody has read; the kernel's of their ends stay."""
        gone = list[Letter]()
        for address in self._addresses.values():
            written = (each for each in address.box if each.topic != EXIT_TOPIC)
            found = [each for each in written if each.sender in senders]
            for letter in found:
                address.take_back(letter)
            gone += found
        self._n_undelivered += len(gone)
        if self._disk is not None and gone:
            self._disk.add(lambda connection: tables.remove(connection, gone))

    async def load(self) -> None:
        """Take up the mail of the kernel before."""
        if self._disk is None:
            return
        stored = await self._disk.read(tables.load)
        self._last_id = stored.last_id
        self.dead.box.put(stored.dead)
        for letter in stored.letters:
            if (receiver := self._table.find(letter.to)) is not None and receiver.is_alive:
                self._deliver(receiver, letter)
        for pid, sender in stored.correspondents:
            if (receiver := self._table.find(pid)) is not None and receiver.is_alive:
                self._address(receiver).correspondents.add(sender)
        for pid, topic in stored.topics:
            if (receiver := self._table.find(pid)) is not None and receiver.is_alive:
                self._address(receiver).topics[topic] = None

    def close(self, process: Process, *, is_over: bool = True) -> None:
        """The process has ended: its mailbox goes, and senders who asked for it learn that their letters were not read.

        With `is_over` false it is the kernel that ends: on disk all stays as it is.
        """
        address = self._addresses.pop(process.pid, None)
        if address is None:
            return
        self._n_undelivered += len(address.box)
        receipts = [found for each in address.box if (found := self._acknowledge_unread(each))]
        if self._disk is not None and is_over:
            self._disk.add(lambda connection: tables.close(connection, process.pid))
            told = [receipt for _, receipt in receipts]
            self._disk.add(lambda connection: tables.put(connection, told))
        if is_over:
            self.dead.bury_soon(
                [self._died(each, "unread") for each in address.box if each.wants_dead_letter]
            )
        for other in self._addresses.values():
            other.correspondents.discard(process.pid)
        address.changed.wake_all()

    def count_urgent(self, process: Process) -> int:
        """How many urgent letters wait for a process; looks at none of them."""
        address = self._addresses.get(process.pid)
        return 0 if address is None else address.box.n_urgent

    def statistics(self) -> PostStatistics:
        """Counters; cheap."""
        return PostStatistics(
            self._n_sent,
            self._n_received,
            self._n_refused,
            self._n_undelivered,
            sum(len(address.box) for address in self._addresses.values()),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if mail is lost, doubled or lies with the dead."""
        self.dead.box.check_invariants()
        seen: set[int] = set()
        for pid, address in self._addresses.items():
            assert self._table.get(pid).is_alive, f"process {pid} has ended and has a mailbox"
            address.box.check_invariants()
            for letter in address.box:
                assert letter.to == pid, f"letter {letter.id} lies in the wrong mailbox"
                assert letter.id not in seen, f"letter {letter.id} lies in two mailboxes"
                assert self.dead.box.find(letter.id) is None, (
                    f"letter {letter.id} is dead and alive"
                )
                seen.add(letter.id)
        n_waiting = self._n_sent - self._n_received - self._n_undelivered
        assert len(seen) == n_waiting, f"{len(seen)} letters wait where {n_waiting} should"

    def _hindrance(self, receiver: Process, letter: Letter) -> WhyDead | None:
        """Why a letter cannot be put into a mailbox now."""
        if receiver.exiting is not None:
            return "exited"
        return None if self._address(receiver).can_take(letter) else "full"

    def _refused(self, receiver: Process, why: WhyDead) -> AiosError:
        """The error for a letter that its sender does not want dead."""
        if why == "exited":
            return ended(receiver)
        self._n_refused += 1
        return full(receiver, self._address(receiver).box)

    def _died(self, letter: Letter, why: WhyDead) -> DeadLetter:
        return DeadLetter(letter, why, self._clock.unix_s())

    async def _wait_for_room(
        self, run: Run, receiver: Process, letter: Letter
    ) -> tuple[Letter, WhyDead | None]:
        """Wait, parked, until the letter is the first that may go in. Returns: it, numbered as it goes in; or why it cannot."""
        address = self._address(receiver)
        queue = address.waiting[letter.is_urgent]
        queue[letter.id] = run.process
        try:
            while not address.can_take(letter):
                with run.parked():
                    await address.changed.wait()
                if run.process.is_stopped:
                    address.changed.wake_all()  # who looked before it was stopped
                    await run.runnable()
                if receiver.exiting is not None:
                    return letter, "exited"
        finally:
            del queue[letter.id]
            address.changed.wake_all()
        return msgspec.structs.replace(letter, id=self._next_id()), None

    async def _keep_letters(
        self,
        run: Run,
        delivered: Sequence[Delivery],
        answer: Answer,
        *,
        buried: Sequence[DeadLetter] = (),
        revived: Sequence[int] = (),
    ) -> None:
        """Return when letters are on disk. Who takes one earlier is answered later: its own write comes behind this one."""
        letters = [letter for _, letter in delivered]
        with ExitStack() as undo:
            undo.callback(self._take_back, delivered)
            await self.dead.write(
                run,
                answer,
                buried=buried,
                removed=revived,
                also=lambda connection: tables.put(connection, letters),
            )
            undo.pop_all()

    async def _take_letters(
        self, run: Run, address: Address, *, receipts: Sequence[Delivery], answer: Received
    ) -> None:
        """Return when it is on disk that letters were taken, by this call."""
        if self._disk is None:
            return

        def write(connection: apsw.Connection) -> None:
            tables.remove(connection, answer.letters)
            tables.put(connection, [receipt for _, receipt in receipts])
            run.sealed(connection, answer)

        with ExitStack() as undo:
            undo.callback(self._take_back, receipts)
            undo.callback(self._put_back, address, answer.letters)
            await self._disk.write(write)
            undo.pop_all()

    def _take_back(self, delivered: Sequence[Delivery]) -> None:
        for address, letter in delivered:
            address.take_back(letter)
            self._n_sent -= 1

    def _put_back(self, address: Address, letters: Sequence[Letter]) -> None:
        address.box.put_back(letters)
        self._n_received -= len(letters)

    def _deliver(self, receiver: Process, letter: Letter) -> Delivery:
        address = self._address(receiver)
        address.box.put(letter)
        address.correspondents.add(letter.sender)
        self._n_sent += 1
        address.changed.wake_all()
        return address, letter

    def _acknowledge(self, letter: Letter, what: str) -> Delivery | None:
        """Tell the sender, if it asked and still lives. A receipt is not refused: its sender's letter made room for it."""
        sender = self._table.find(letter.sender) if letter.wants_receipt else None
        if sender is None or sender.exiting is not None:
            return None
        receiver = self._table.get(letter.to)
        receipt = self._letter(receiver, sender, what, topic=RECEIPT_TOPIC, reply_to=letter.id)
        return self._deliver(sender, receipt)

    def _acknowledge_unread(self, letter: Letter) -> Delivery | None:
        """Tell the sender that the receiver has ended before it read the letter."""
        return self._acknowledge(letter, "dead" if letter.wants_dead_letter else "undelivered")

    def _letter(
        self, sender: Process, to: Process, body: str, *, topic: str = "", reply_to: int = 0
    ) -> Letter:
        """A new letter."""
        return Letter(
            id=self._next_id(),
            sender=sender.pid,
            sender_name=sender.name,
            to=to.pid,
            body=body,
            sent_unix_s=self._clock.unix_s(),
            topic=topic,
            reply_to=reply_to,
            taint=marks.of(sender, topic),
        )

    def _address(self, process: Process) -> Address:
        address = self._addresses.get(process.pid)
        if address is None:
            box = Box(self._limits.max_mailbox_letters, self._limits.max_mailbox_bytes)
            address = self._addresses[process.pid] = Address(box)
        return address

    def _check(self, sender: Process, receiver: Process) -> None:
        """Raise AccessDenied if the receiver is a stranger to the sender; the policies were asked before the call began."""
        if not self._knows(sender, receiver):
            raise AccessDenied(
                f"process {sender.pid} ({sender.name}) may not write to process {receiver.pid}",
                hint="it belongs to another owner; it can be answered once it has written",
            )

    def _knows(self, sender: Process, receiver: Process) -> bool:
        """Whether it is of the same owner, or ruled by the sender, or has written first."""
        if self._access.may_turn_to(sender, receiver):
            return True
        mine = self._addresses.get(sender.pid)
        return mine is not None and receiver.pid in mine.correspondents

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _nothing(_: apsw.Connection) -> None:
    return None
