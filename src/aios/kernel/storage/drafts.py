"""Drafts: long contents that come in pieces over several calls, and are no files yet.

What has come is cut, and its chunks are in files; in memory is a list of them and the last piece of up to 1 MiB. All are synced
at the end, at once.
"""

from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from aios.abi.storage import Draft, FileDraft
from aios.abi.types import Pid
from aios.disk.blobs import BlobStore, Piece
from aios.disk.chunks import COARSE, Cutter
from aios.errors import NotFound, ResourceExhausted


@dataclass
class OpenDraft:
    """One content on its way."""

    pid: Pid
    cutter: Cutter = field(default_factory=lambda: Cutter(COARSE))
    pieces: list[Piece] = field(default_factory=list)
    size_bytes: int = 0
    turn: anyio.Lock = field(default_factory=anyio.Lock)


class Drafts:
    """The drafts of all processes."""

    def __init__(self, blobs: BlobStore, max_drafts: int) -> None:
        self._blobs = blobs
        self._max_drafts = max_drafts
        self._open: dict[int, OpenDraft] = {}
        self._last = 0

    async def add(self, pid: Pid, call: FileDraft) -> Draft:
        """Add to a draft, or begin one.

        Raises:
            NotFound: The caller has no such draft.
            ResourceExhausted: It has too many.
        """
        number = call.draft or self._begin(pid)
        draft = self._get(pid, number)
        async with draft.turn:
            try:
                await anyio.to_thread.run_sync(self._feed, draft, call.data)
            finally:
                if number not in self._open:  # its process ended meanwhile
                    self._blobs.settle(*draft.pieces)
        return Draft(number, draft.size_bytes)

    async def add_again(self, pid: Pid, call: FileDraft, number: int) -> None:
        """A piece that was added under an earlier kernel, to the draft of that number."""
        if number not in self._open:
            self._open[number] = OpenDraft(pid)
            self._last = max(self._last, number)
        await anyio.to_thread.run_sync(self._feed, self._open[number], call.data)

    def drop(self, pid: Pid, number: int) -> None:
        """A draft went into a file under an earlier kernel, and is no more."""
        draft = self._open.get(number)
        if draft is not None and draft.pid == pid:
            del self._open[number]
            self._blobs.settle(*draft.pieces)

    async def finish(self, pid: Pid, number: int) -> list[Piece]:
        """The staged chunks of a draft, which is closed by this; the caller settles them.

        Raises:
            NotFound: The caller has no such draft.
        """
        draft = self._get(pid, number)
        async with draft.turn:
            self._get(pid, number)  # it may have ended, or been finished, while this waited
            del self._open[number]
            try:
                await anyio.to_thread.run_sync(self._stage, draft, draft.cutter.finish())
                await self._blobs.sync_many(draft.pieces)
            except BaseException:
                self._blobs.settle(*draft.pieces)
                raise
        return draft.pieces

    def close(self, pid: Pid) -> None:
        """A process has ended: its drafts go."""
        for number, draft in list(self._open.items()):
            if draft.pid == pid:
                del self._open[number]
                if not draft.turn.locked():
                    self._blobs.settle(*draft.pieces)

    def _begin(self, pid: Pid) -> int:
        n_open = sum(draft.pid == pid for draft in self._open.values())
        if n_open >= self._max_drafts:
            raise ResourceExhausted(
                f"process {pid} has {n_open} drafts open, the limit is {self._max_drafts}",
                hint="finish one with `Put`, or raise storage.max_drafts",
                retry_after_s=1.0,
            )
        self._last += 1
        self._open[self._last] = OpenDraft(pid)
        return self._last

    def _get(self, pid: Pid, number: int) -> OpenDraft:
        draft = self._open.get(number)
        if draft is None or draft.pid != pid:
            raise NotFound(f"process {pid} has no draft {number}", hint="begin one with draft 0")
        return draft

    def _feed(self, draft: OpenDraft, data: bytes) -> None:
        self._stage(draft, draft.cutter.feed(data))
        draft.size_bytes += len(data)

    def _stage(self, draft: OpenDraft, chunks: list[bytes]) -> None:
        for chunk in chunks:
            draft.pieces.append(self._blobs.stage_later(chunk))
