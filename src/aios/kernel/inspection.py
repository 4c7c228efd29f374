"""The calls that look at the journal: records of a process, and events as they happen."""

from collections.abc import Callable, Iterable, Iterator

import apsw
import msgspec

from aios.abi.every import AnyAnswer, AnyCall
from aios.abi.gate import Fault
from aios.abi.journal import (
    Event,
    EventList,
    Events,
    JournalRead,
    JournalRecords,
    Recorded,
)
from aios.abi.types import JsonObject
from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.errors import InvalidCall
from aios.kernel.access.manager import AccessManager
from aios.kernel.journal import tables
from aios.kernel.journal.events import Item, ProcessEvent
from aios.kernel.journal.journal import Journal
from aios.kernel.journal.records import Outcome, Record
from aios.kernel.journal.streams import PIECE
from aios.kernel.journal.tables import Row
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.taint import take_from

MAX_PAGE_BYTES = 4 << 20
"""Of what was asked and answered, on one page."""
WAY = ", by "
OF_THE_KERNEL = frozenset({"started", "replayed", "adopted", "tainted", "braked"})
"""Events in whose details nothing is that a process wrote, but for names."""


class Inspection:
    """The handlers of these calls."""

    def __init__(self, journal: Journal, table: ProcessTable, access: AccessManager) -> None:
        self._journal = journal
        self._table = table
        self._access = access

    async def read(self, run: Run, call: JournalRead) -> JournalRecords:
        """Read records."""
        disk = self._journal.disk
        process = self._table.get(call.pid)
        after = call.after
        if after < 0:
            after = max(0, process.n_journalled + after)
        if disk is None:
            records = [each for each in self._journal.records(call.pid) if each.seq > after]
            page, is_cut = _page(Row(each) for each in records[: call.limit])
        else:
            page, is_cut = await disk.read_all(lambda c: _page(_rows(c, call, after)))
        take_from(run, process)  # now: what is read may be of after the call began
        is_last = not is_cut and len(page) < call.limit
        next_seq = None if is_last else page[-1].seq
        return JournalRecords(tuple(page), next_seq, disk is not None)

    async def events(self, run: Run, call: Events) -> EventList:
        """Wait for events."""
        ring = self._journal.events
        above = None if call.pid is None else self._table.get(call.pid)
        after = ring.last if call.after is None else max(call.after, ring.base)
        is_restarted = call.after is not None and 0 < call.after < ring.base
        n_missed = 0
        while True:
            items, n_dropped = ring.read(after, call.limit)
            n_missed += n_dropped
            after = items[-1][0] if items else after + n_dropped
            seen = [
                (number, item)
                for number, item in items
                if (call.has_text or not _is_piece(item)) and self._sees(run, item, above)
            ]
            for _, item in seen:
                if _has_words(item):
                    take_from(run, self._table.get(item.pid))
            is_owner = run.process.pid == INIT_PID
            found = [_event(number, item, is_owner=is_owner) for number, item in seen]
            if found or is_restarted or not call.is_waiting:
                return EventList(tuple(found), after, n_missed, is_restarted)
            if not items:
                with run.parked():
                    await ring.wait_changed()
                await run.runnable()

    def note_taint(self, process: Process, changed: Callable[[Process], None]) -> None:
        """Data from outside has reached a process: tell those who watch, and have its row written by `changed`."""
        if process.taint is not None:
            via = f"{WAY}{process.taint.via}" if process.taint.via else ""
            self._journal.tell(process.pid, "tainted", f"{process.taint.source}{via}")
        changed(process)

    def _sees(self, run: Run, item: Item, above: Process | None) -> bool:
        """Whether the caller may see that process, and asked for it. Its own call of `events` is none."""
        process = self._table.find(item.pid)
        if process is None or not self._access.may_reach(run.process, process):
            return False
        if isinstance(item, Record) and item.call == run.name:
            return False
        return above is None or self._table.is_within(process, above)


def recorded(row: Row) -> Recorded:
    """A record as others see it."""
    record = row.record
    code, answer = record.code, JsonObject()
    if row.answer and record.outcome is Outcome.FAULT:
        fault = decode_fault(row.answer)
        code, answer = fault.code, _object(fault)
    elif row.answer:
        answer = _decoded_answer(row.answer)
    return Recorded(
        pid=record.pid,
        seq=record.seq,
        call=record.call,
        effect=record.effect.value,
        outcome=record.outcome.value,
        begun_unix_s=record.begun_unix_s,
        ended_unix_s=record.ended_unix_s or None,
        waited_s=record.waited_s,
        ran_s=record.ran_s,
        n_preemptions=record.n_preemptions,
        code=code,
        within=record.within,
        job=record.job,
        intent=_decoded_call(row.intent) if row.intent else {},
        answer=answer,
    )


def _is_piece(item: Item) -> bool:
    return isinstance(item, ProcessEvent) and item.what == PIECE


def _has_words(item: Item) -> bool:
    """Whether an event may say what its process, or who ended it, has written; a status alone is none."""
    if not isinstance(item, ProcessEvent) or item.what in OF_THE_KERNEL:
        return False
    return bool(item.detail) and not item.detail.isdecimal()


def _rows(connection: apsw.Connection, call: JournalRead, after: int) -> Iterator[Row]:
    """The records that are asked for; unless in full, without texts but those of faults."""
    for row in tables.each(connection, call.pid, after=after, limit=call.limit, texts=call.is_full):
        has_text = call.is_full or row.record.outcome is Outcome.FAULT
        yield row if has_text else Row(row.record)


def _page(rows: Iterable[Row]) -> tuple[list[Recorded], bool]:
    """As many records as fit on a page, at least one. Returns: also whether there are more."""
    page, size_bytes = list[Recorded](), 0
    for row in rows:
        size_bytes += len(row.intent) + len(row.answer)
        if page and size_bytes > MAX_PAGE_BYTES:
            return page, True
        page.append(recorded(row))
    return page, False


def _event(number: int, item: Item, *, is_owner: bool) -> Event:
    if isinstance(item, ProcessEvent):
        # the way of a mark may be a file, whose name says something: for the owner alone
        is_cut = item.what == "tainted" and not is_owner
        detail = item.detail.partition(WAY)[0] if is_cut else item.detail
        return Event(number, item.pid, item.unix_s, item.what, detail)
    told = recorded(Row(item))
    return Event(number, item.pid, item.ended_unix_s, item.call, item.outcome.value, told)


def _decoded_call(body: bytes) -> JsonObject:
    """A call as an object; empty if another version of AIOS wrote it."""
    try:
        return _object(decode_call(body))
    except InvalidCall:
        return {}


def _decoded_answer(body: bytes) -> JsonObject:
    try:
        return _object(decode_answer(body))
    except InvalidCall:
        return {}


def _object(value: AnyCall | AnyAnswer | Fault) -> JsonObject:
    return msgspec.convert(msgspec.to_builtins(value), JsonObject)
