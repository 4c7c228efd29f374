"""Drafts: long contents that come in pieces over several calls, and are no files yet.

What has come is cut, and its chunks are in files; in memory is a list of them and the last piece of up to 1 MiB. All are synced
at the end, at once.
"""

from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from aios.abi.storage import Draft, FileDraft
from aios.abi.types import Pid
from aios.config import StorageConfig
from aios.disk.blobs import BlobStore, Piece
from aios.disk.chunks import COARSE, Cutter
from aios.disk.db import Database
from aios.errors import NotFound, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.storage.tables import largest_quota

IDLE_S = 600.0
"""A draft that nobody adds to for so long makes room for another one of its process, and is collected with what no version needs."""
ABANDONED_S = 86_400.0
"""One that nobody adds to for so long goes when any other begins: its client was killed, for a pipe is not slow for a day."""


@dataclass
class OpenDraft:
    """One content on its way."""

    cutter: Cutter = field(default_factory=lambda: Cutter(COARSE))
    pieces: list[Piece] = field(default_factory=list)
    size_bytes: int = 0
    touched_s: float = 0.0
    turn: anyio.Lock = field(default_factory=anyio.Lock)


class Drafts:
    """The drafts of all processes."""

    def __init__(self, db: Database, blobs: BlobStore, clock: Clock, config: StorageConfig) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._config = config
        self._open: dict[tuple[Pid, int], OpenDraft] = {}
        """By process too: one that is replayed, or a fork of it, has drafts again by the numbers that it knows them by."""
        self._last = 0

    async def add(self, pid: Pid, call: FileDraft) -> Draft:
        """Add to a draft, or begin one.

        Raises:
            NotFound: The caller has no such draft.
            ResourceExhausted: It has too many, or this one is larger than any folder may be.
        """
        if call.is_dropped:
            self._get(pid, call.draft)
            self.drop(pid, call.draft)
            return Draft(call.draft, 0)
        await self._db.open()
        number = call.draft or self._begin(pid)
        draft = self._get(pid, number)
        async with draft.turn:
            self._check_size(draft, len(call.data))
            await self._fed(pid, number, call.data)
        return Draft(number, draft.size_bytes)

    async def add_again(self, pid: Pid, call: FileDraft, number: int) -> None:
        """A piece that was added in an earlier life, to the draft of that number."""
        if call.is_dropped:
            self.drop(pid, number)
            return
        draft = self._open.setdefault((pid, number), OpenDraft())
        self._last = max(self._last, number)
        async with draft.turn:
            await self._fed(pid, number, call.data)

    def drop(self, pid: Pid, number: int) -> None:
        """A draft went into a file in an earlier life, or nothing will come of it: it is no more."""
        draft = self._open.pop((pid, number), None)
        if draft is not None and not draft.turn.locked():  # else who has the turn does it
            self._blobs.settle(*draft.pieces)

    async def finish(self, pid: Pid, number: int) -> list[Piece]:
        """The staged chunks of a draft, which is closed by this; the caller settles them.

        Raises:
            NotFound: The caller has no such draft.
        """
        draft = self._get(pid, number)
        async with draft.turn:
            self._get(pid, number)  # it may have ended, or been finished, while this waited
            del self._open[pid, number]
            try:
                await anyio.to_thread.run_sync(self._stage, draft, draft.cutter.finish())
                await self._blobs.sync_many(draft.pieces)
            except BaseException:
                self._blobs.settle(*draft.pieces)
                raise
        return draft.pieces

    def close(self, pid: Pid) -> None:
        """A life of a process has ended: its drafts go."""
        for whose, number in list(self._open):
            if whose == pid:
                self.drop(pid, number)

    def close_all(self) -> None:
        """The kernel is ending."""
        for pid, number in list(self._open):
            self.drop(pid, number)

    def close_idle(self, pid: Pid | None = None, *, idle_s: float = IDLE_S) -> int:
        """Drop what a process, or any, has begun and left: a command that was cut off says nothing. Returns: the bytes of it that were in files."""
        freed_bytes = 0
        for (whose, number), draft in list(self._open.items()):
            is_theirs = pid is None or whose == pid
            if is_theirs and self._clock.now_s() - draft.touched_s > idle_s:
                self.drop(whose, number)
                freed_bytes += sum(each.size_bytes for each in draft.pieces if each.data is None)
        return freed_bytes

    def _begin(self, pid: Pid) -> int:
        self.close_idle(idle_s=ABANDONED_S)
        if self._n_open(pid) >= self._config.max_drafts:
            self.close_idle(pid)
        if (n_open := self._n_open(pid)) >= self._config.max_drafts:
            raise ResourceExhausted(
                f"process {pid} has {n_open} drafts open, the limit is {self._config.max_drafts}",
                hint="finish one with `Put`, or raise storage.max_drafts",
                retry_after_s=1.0,
            )
        self._last += 1
        self._open[pid, self._last] = OpenDraft(touched_s=self._clock.now_s())
        return self._last

    def _n_open(self, pid: Pid) -> int:
        return sum(whose == pid for whose, _ in self._open)

    def _check_size(self, draft: OpenDraft, n_more: int) -> None:
        """A draft counts for no quota yet; it must not fill the disk all the same."""
        limit = self._db.read_nowait(partial(largest_quota, quota_bytes=self._config.quota_bytes))
        if draft.size_bytes + n_more > limit:
            raise ResourceExhausted(
                f"a file of {draft.size_bytes + n_more} bytes is larger than any folder may be, which is {limit}",
                hint="the owner can raise a quota: `aios fs quota`",
            )

    def _get(self, pid: Pid, number: int) -> OpenDraft:
        draft = self._open.get((pid, number))
        if draft is None:
            raise NotFound(f"process {pid} has no draft {number}", hint="begin one with draft 0")
        return draft

    async def _fed(self, pid: Pid, number: int, data: bytes) -> None:
        """Return when data was added to a draft, whose turn the caller has."""
        draft = self._get(pid, number)
        draft.touched_s = self._clock.now_s()
        try:
            await anyio.to_thread.run_sync(self._feed, draft, data)
        finally:
            if self._open.get((pid, number)) is not draft:  # its process ended meanwhile
                self._blobs.settle(*draft.pieces)

    def _feed(self, draft: OpenDraft, data: bytes) -> None:
        self._stage(draft, draft.cutter.feed(data))
        draft.size_bytes += len(data)

    def _stage(self, draft: OpenDraft, chunks: list[bytes]) -> None:
        for chunk in chunks:
            draft.pieces.append(self._blobs.stage_later(chunk))
