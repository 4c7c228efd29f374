"""Asking a human: the call that asks waits, parked, until the owner has answered, the time is over, or its process has ended.

    find an answer that holds | open a question: audit -> disk -> those who watch -> wait -> take the answer -> the call goes on

Open questions and answers that hold are on disk: a program that is run again after a crash asks the same and finds its question. The call that
asks has no intent on disk yet (`kernel/syscall.py`), so whatever ends it here, its effect has not begun.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import anyio
import apsw
import msgspec

from aios.abi.access import Decision, Request
from aios.abi.approvals import (
    HUMAN_ASK,
    WAITS_FOR,
    Approval,
    ApprovalAnswer,
    ApprovalInfos,
    ApprovalList,
    ApprovalRevoke,
    ApprovalState,
    AskHuman,
    HumanAnswer,
)
from aios.abi.gate import Advance
from aios.abi.types import Pid
from aios.config import ApprovalsConfig
from aios.errors import (
    AccessDenied,
    ApprovalDenied,
    ApprovalExpired,
    Conflict,
    Unsupported,
)
from aios.kernel.access.policy import digest_of
from aios.kernel.approvals import book, tables
from aios.kernel.approvals.asked import Asked, question_of, told
from aios.kernel.approvals.book import Book
from aios.kernel.clock import Clock
from aios.kernel.journal.audit.chain import Kind
from aios.kernel.journal.audit.log import AuditLog
from aios.kernel.journal.journal import Journal
from aios.kernel.journal.records import Outcome
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.waitqueue import WaitQueue

LOOK_S = 10.0
"""The calendar is looked at so often, for it may be set; nothing tells."""
OPEN = ApprovalState.OPEN

Watch = Callable[[Approval], None]


class ApprovalServices(Protocol):
    """What is used of the kernel."""

    clock: Clock
    table: ProcessTable
    journal: Journal
    audit: AuditLog

    def note(self, process: Process, text: str) -> None:
        """Write into its log what the kernel has to say of it."""
        ...


class Approvals:
    """The questions, the handlers of the calls about them, and the hook of the access manager."""

    def __init__(self, kernel: ApprovalServices, config: ApprovalsConfig) -> None:
        self._kernel = kernel
        self._config = config
        self._book = Book(config.max_open, config.max_open_in_all, config.max_kept)
        self._waiting: dict[int, WaitQueue] = {}
        """Who waits for an answer, by the question: an answer wakes nobody else."""
        self._n_waiting: Counter[int] = Counter()
        """Calls by the question whose answer they wait for."""
        self._being_answered: set[int] = set()
        """Questions whose answers are on their way to disk: another one comes too late."""
        self._unwritten: set[int] = set()
        """Questions on their way to disk: nobody is shown them yet."""
        self._doubts: dict[Pid, list[Approval]] = {}
        """Answers that were taken by calls of which nobody knows yet whether they are made again."""
        self.watchers: list[Watch] = []
        """Told of each question that is new, and of each that is answered or over."""

    @property
    def can_ask(self) -> bool:
        """Whether there is anybody to ask."""
        return self._config.timeout_s > 0

    # --- asking --------------------------------------------------------------------------------------------------

    async def decide(self, run: Run, request: Request, decision: Decision) -> None:
        """Let a human decide about an act; the hook of the access manager.

        Raises:
            ApprovalDenied: The answer is no.
            ApprovalExpired: There was none in time.
            ResourceExhausted: Too many questions are open.
        """
        process, resource = run.process, request.resource
        asked = Asked(
            request.action,
            f"{resource.type} {resource.id}",
            request.digest,
            "; ".join(decision.reasons),
            run.shown() if run.shown is not None else "",
            request.effect,
            request.is_tainted,
        )
        end = await self.ask(run, asked)
        who = f"process {process.pid} ({process.name})"
        what = f"`{request.action}` on {asked.resource}"
        if end.state is ApprovalState.DENIED:
            raise ApprovalDenied(
                f"{who} may not use {what}: {end.by} said no (question {end.id})",
                hint=f"do without it; the owner can take the no back: `aios approvals revoke {end.id}`",
            )
        if end.state is ApprovalState.EXPIRED:
            raise ApprovalExpired(
                f"{who} may not use {what}: nobody answered question {end.id} in time",
                hint="do without it, or ask again when somebody is there; see approvals.timeout_s",
            )

    async def ask_human(self, run: Run, call: AskHuman) -> HumanAnswer:
        """Put a question in words."""
        if not self.can_ask:
            raise Unsupported("nobody can be asked here: approvals.timeout_s is 0", hint="set it")
        digest = digest_of([call.text, call.choices])
        asked = Asked(
            HUMAN_ASK,
            "Human owner",
            digest,
            call.text,
            choices=call.choices,
            timeout_s=call.timeout_s,
        )
        found = await self._answer_to(run, asked)
        if found.state is ApprovalState.EXPIRED:
            return HumanAnswer("", is_expired=True)
        answer = HumanAnswer(found.said)
        used = self._book.put(book.taken(found))
        disk = self._kernel.journal.disk
        if disk is not None:

            def write(connection: apsw.Connection) -> None:
                tables.save(connection, used)
                run.sealed(connection, answer)

            try:
                await disk.write(write)
            except BaseException:
                self._book.put(found)  # nobody was told
                raise
        return answer

    async def ask(self, run: Run, asked: Asked) -> Approval:
        """Return the answer to a question: one that holds already, or the one that a human gives. It is taken by this call.

        Returns: The question, `DENIED` or `EXPIRED` or with its answer.

        Raises:
            DiskFailed: It cannot be written down, so nobody is asked.
            ResourceExhausted: Too many questions are open.
        """
        found = await self._answer_to(run, asked)
        if found.state in book.REVOCABLE:
            used = book.taken(found)
            if used is not found:
                self._book.put(used)
                self._save(used, run.record_seq)
                run.taken.append(used.id)
        return found

    async def _answer_to(self, run: Run, asked: Asked) -> Approval:
        """A question with its answer, which nobody else has taken when this returns."""
        while True:
            found = await self.inquire(run.process, asked)
            if found.state is not OPEN:
                return found
            found = await self.wait(run, found.id)
            if found.state is ApprovalState.EXPIRED:
                return found

    async def inquire(self, process: Process, asked: Asked) -> Approval:
        """The question of a process about something, open or with an answer that holds; it is asked if it is not there.

        Raises:
            DiskFailed: It cannot be written down, so nobody is asked.
            ResourceExhausted: Too many questions are open.
        """
        now_unix_s, longest_s = self._kernel.clock.unix_s(), self._config.timeout_s
        question = question_of(process, asked, now_unix_s=now_unix_s, longest_s=longest_s)
        return self._book.find(question) or await self._open(process, question)

    def get(self, number: int) -> Approval:
        """A question as it is now."""
        return self._book.get(number)

    def is_trusted(self, program: str, code: str) -> bool:
        """Whether an answer holds for a program with that code, whichever process of it asks."""
        return self._book.is_trusted(program, code)

    def open_about(self, pid: Pid, action: str, resource: str) -> list[Approval]:
        """The open questions of a process about an act."""
        about = (OPEN, action, resource)
        found = self._book.of_process(pid)
        return [row for row in found if (row.state, row.action, row.resource) == about]

    def expire(self, question: Approval) -> bool:
        """End a question if its time is over. Returns: whether it is."""
        if question.expires_unix_s > self._kernel.clock.unix_s():
            return False
        self._end(question, ApprovalState.EXPIRED)
        return True

    def take(self, row: Approval) -> None:
        """What an answer was for is done."""
        self._save(self._book.put(book.taken(row)))

    def take_answered(self, number: int) -> None:
        """What the answer to a question was for is done, if it was that answer."""
        if self._book.has(number) and self._book.get(number).state in book.REVOCABLE:
            self.take(self._book.get(number))

    async def _open(self, process: Process, question: Approval) -> Approval:
        """Put a question into the book and onto the disk. If it cannot be written down, it was never asked.

        Returns: The question with its number.
        """
        question = msgspec.structs.replace(question, id=self._book.next_id())
        self._book.add(question)
        self._unwritten.add(question.id)
        self._audit(Kind.ASKED, question)
        disk = self._kernel.journal.disk
        try:
            if disk is not None:
                await disk.write(lambda connection: tables.save(connection, question))
        except BaseException:
            self._book.put(book.over(question, ApprovalState.WITHDRAWN))
            raise
        finally:
            self._unwritten.discard(question.id)
        self._kernel.note(
            process,
            f"waits for an answer: {told(question)}; `aios approvals show {question.id}`",
        )
        self._tell(question)
        return question

    async def wait(self, run: Run, number: int) -> Approval:
        """Return when a question is no longer open. Who leaves earlier takes it with him, unless others wait for it or the kernel ends."""
        changed = self._waiting.setdefault(number, WaitQueue())
        self._n_waiting[number] += 1
        told = f"{WAITS_FOR}{number}"
        if run.emit is not None:
            run.emit(Advance(told, 0))
        try:
            with run.saying(told), run.parked():
                while (found := self._book.get(number)).state is OPEN and not self.expire(found):
                    with anyio.move_on_after(self.patience_s(found)):
                        await changed.wait()
        finally:
            self._n_waiting[number] -= 1
            if not self._n_waiting[number]:
                del self._n_waiting[number], self._waiting[number]
                self.withdraw(number)
        await run.runnable()
        return self._book.get(number)

    def patience_s(self, question: Approval) -> float:
        """How long one may wait before one looks again whether the time of a question is over."""
        return min(question.expires_unix_s - self._kernel.clock.unix_s(), LOOK_S)

    def withdraw(self, number: int) -> None:
        """Nobody wants to know any more; a kernel that ends leaves its questions to the next."""
        found = self._book.get(number)
        if found.state is OPEN and not self._kernel.journal.is_closing:
            self._end(found, ApprovalState.WITHDRAWN)

    def _end(self, question: Approval, state: ApprovalState) -> None:
        """A question is over without an answer."""
        after = self._book.put(book.over(question, state))
        if state is ApprovalState.EXPIRED:
            self._audit(Kind.EXPIRED, after)
        self._save(after)
        self._tell(after)

    # --- the calls -----------------------------------------------------------------------------------------------

    async def list_all(self, run: Run, call: ApprovalList) -> ApprovalInfos:
        """What is asked."""
        _check_owner(run)
        for each in self._book.listed(is_all=False):
            self.expire(each)
        found = self._book.shown(is_all=call.all)
        return ApprovalInfos(tuple(each for each in found if each.id not in self._unwritten))

    async def answer(self, run: Run, call: ApprovalAnswer) -> Approval:
        """Answer a question; it counts once it is on disk."""
        _check_owner(run)
        before = self._book.get(call.id)
        by, unix_s = run.process.owner, self._kernel.clock.unix_s()
        after = book.answered(before, call.answer, by=by, unix_s=unix_s)
        self._check_alone(call.id)
        self._audit(Kind.ANSWERED, after)
        return await self._write(run, before, after)

    def answer_elsewhere(self, question: Approval, said: str, *, by: str) -> None:
        """An open question was answered by another call than `approval_answer`."""
        after = book.answered(question, said, by=by, unix_s=self._kernel.clock.unix_s())
        self._audit(Kind.ANSWERED, after)
        self._save(after)
        self._settle(after)

    async def revoke(self, run: Run, call: ApprovalRevoke) -> Approval:
        """Take an answer back."""
        _check_owner(run)
        before = self._book.get(call.id)
        if not before.holds or before.state is OPEN:
            raise Conflict(
                f"question {call.id} is {before.state.value}, and no answer of it holds",
                hint="`aios approvals ls --all`",
            )
        self._check_alone(call.id)
        return await self._write(run, before, book.over(before, ApprovalState.REVOKED))

    # --- the lives of kernels and processes ----------------------------------------------------------------------

    async def load(self, first_needed: Mapping[Pid, int]) -> None:
        """Take up what the kernel before asked and was told. All processes that it left are in the table.

        Args:
            first_needed: The first record of each program's journal that is kept for it, whatever its age.
        """
        disk = self._kernel.journal.disk
        assert disk is not None, "a kernel without a journal takes up nothing"
        kept, last_id = await disk.read(tables.load)
        rows = []
        for each in kept:
            row, process = each.row, self._kernel.table.find(each.row.pid)
            if process is None or not process.is_alive:
                row = book.ended(row) if row.holds else row
            elif (
                row.state is ApprovalState.USED
                and each.taken_seq is not None
                and row.pid in first_needed
                # of a life before this one the record may be forgotten, and the call was made
                and each.taken_seq >= first_needed[row.pid]
            ):
                row = self._taken_up(row, each.outcome)
            rows.append(row)
        self._book.load(rows, last_id)
        self._save_replaced()

    def _taken_up(self, row: Approval, outcome: str | None) -> Approval:
        """An answer that a call of a program had taken: it holds again if that call was never made, for then it will be."""
        if outcome is None:
            return book.untaken(row)
        if outcome == Outcome.OPEN.value:
            self._doubts.setdefault(row.pid, []).append(row)
        return row

    def settle_doubts(self, pid: Pid, *, is_again: bool) -> None:
        """The owner has decided what becomes of calls that a crash cut off: those that are made again need no second answer."""
        for row in self._doubts.pop(pid, []):
            if is_again and self._book.has(row.id):
                self._hold_again(row)

    def give_back(self, run: Run) -> None:
        """A call was cut off before its effect began: what it had taken holds for who asks the same again."""
        for number in run.taken:
            if self._book.has(number):
                self._hold_again(self._book.get(number))

    def _hold_again(self, row: Approval) -> None:
        if self._book.find(row) is None:
            self._save(self._book.put(book.untaken(row)))

    def close(self, process: Process) -> None:
        """A process has ended: its questions go, and all answers but those that are for its program."""
        self._doubts.pop(process.pid, None)
        for row in self._book.of_process(process.pid):
            after = book.ended(row)
            if after is row:
                continue
            self._book.put(after)
            self._save(after)
            if after.state is not row.state:  # what became of the others was told
                self._tell(after)

    def statistics(self) -> dict[str, int]:
        """How many questions are open, and how many answers hold."""
        rows = self._book.listed(is_all=True)
        n_open = sum(each.state is OPEN for each in rows)
        return {"n_open": n_open, "n_holding": sum(each.holds for each in rows) - n_open}

    def check_invariants(self) -> None:
        """Raise AssertionError if the book contradicts itself, or a call waits for nothing."""
        self._book.check_invariants()
        assert all(count > 0 for count in self._n_waiting.values())
        assert self._n_waiting.keys() == self._waiting.keys()

    # --- the rest ------------------------------------------------------------------------------------------------

    def _settle(self, after: Approval) -> None:
        self._book.put(after)
        self._save_replaced()
        self._tell(after)

    def _tell(self, row: Approval) -> None:
        what = "asked" if row.state is OPEN else row.state.value
        self._kernel.journal.tell(row.pid, "approval", f"{row.id} {what}: {told(row)}")
        if row.id in self._waiting:
            self._waiting[row.id].wake_all()
        for watch in self.watchers:
            watch(row)

    def _audit(self, kind: Kind, row: Approval) -> None:
        """Who asked for what and what became of it; never what was written or said."""
        said = ""
        if kind is Kind.ANSWERED:
            answer = row.said if book.is_act(row) else "text"
            said = f" answer={answer} by={row.by}"
        self._kernel.audit.note(row.pid, kind, f"approval={row.id}{said} {told(row)}")

    def _check_alone(self, number: int) -> None:
        if number in self._being_answered:
            raise Conflict(
                f"question {number} is being answered by somebody else",
                hint=f"`aios approvals show {number}` says how",
            )

    async def _write(self, run: Run, before: Approval, after: Approval) -> Approval:
        """Return when a transition that the owner asked for is on disk, with the outcome of his call, and counts.

        Raises:
            Conflict: Something else became of the question meanwhile.
        """
        disk = self._kernel.journal.disk

        def write(connection: apsw.Connection) -> None:
            tables.save(connection, after)
            run.sealed(connection, after)

        self._being_answered.add(before.id)
        try:
            if disk is not None:
                await disk.write(write)
        finally:
            self._being_answered.discard(before.id)
        now = self._book.get(before.id)
        if now is not before:
            self._save(now)
            raise Conflict(
                f"question {now.id} was {now.state.value} meanwhile", hint="`aios approvals ls`"
            )
        self._settle(after)
        return after

    def _save_replaced(self) -> None:
        replaced, self._book.replaced = self._book.replaced, []
        for row in replaced:
            self._save(row)

    def _save(self, row: Approval, taken_seq: int | None = None) -> None:
        """Write a row soon, in the order of the journal's records."""
        dropped, self._book.dropped = self._book.dropped, []
        disk = self._kernel.journal.disk
        if disk is not None:

            def write(connection: apsw.Connection) -> None:
                tables.save(connection, row, taken_seq)
                tables.drop(connection, dropped)

            disk.add(write)


def _check_owner(run: Run) -> None:
    """Rights say so already; that nobody answers for himself does not hang on a table of rights alone."""
    if run.process.pid != INIT_PID:
        raise AccessDenied(
            f"process {run.process.pid} ({run.process.name}) may not answer questions",
            hint="only the owner's token may",
        )
