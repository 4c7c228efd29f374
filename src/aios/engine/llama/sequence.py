"""A generation as its reader sees it: the event loop's side."""

from collections.abc import Sequence
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

from aios.abi.types import Usage
from aios.engine.base import Delta, Suspended
from aios.engine.llama.generation import Generation
from aios.engine.llama.keeping import NOTHING, Kept
from aios.engine.llama.saved import Saved
from aios.errors import AiosError, EngineUnavailable


class Owner(Protocol):
    """The engine, as far as its sequences need it."""

    async def take_out(self, generation: Generation) -> Kept:
        """Free the slot of a generation, wait until the thread will not touch it again, and say what is kept of it."""
        ...

    def release(self, sequence: "LlamaSequence") -> None:
        """The sequence no longer occupies its slot. If it was not suspended, nothing is kept for it."""
        ...


class LlamaSequence:
    """Keeps what was generated until it is read. A `read` or `suspend` that is cancelled loses nothing.

    Args:
        owner: The engine.
        fingerprint: What goes into `Suspended`.
        suspended: What this goes on with.
    """

    def __init__(self, owner: Owner, fingerprint: str, suspended: Suspended | None = None) -> None:
        self._owner = owner
        self._fingerprint = fingerprint
        self._resumed = suspended
        self._unread: list[Delta] = []
        self._emitted: list[str] = []
        self._end: AiosError | None = None
        self._is_open = True
        self.is_suspended = False
        self._news = anyio.Event()
        self.generation: Generation | None = None
        """None if it was suspended after its last token: then there is nothing left to generate."""
        if suspended is not None:
            self._emitted.append(suspended.emitted)
            if isinstance(suspended.state, Saved) and suspended.state.unread is not None:
                self._unread.append(suspended.state.unread)

    @property
    def is_finished(self) -> bool:
        """The last delta has come, though it may not be read yet."""
        return bool(self._unread) and self._unread[-1].finish is not None

    @property
    def usage(self) -> Usage:
        return Usage() if self.generation is None else self.generation.usage_so_far

    def receive(self, delta: Delta) -> None:
        """Take the next piece; called by the outbox."""
        self._unread.append(delta)
        self._news.set()

    def fail(self, error: AiosError) -> None:
        """Nothing more will come; what has come may still be read."""
        self._end = self._end or error
        self._news.set()

    async def read(self) -> Delta:
        await checkpoint()
        while not self._unread or not self._is_open:
            if self._end is not None:
                raise self._end
            self._news = anyio.Event()
            await self._news.wait()
        delta = _merged(self._unread)
        self._unread.clear()
        self._emitted.append(delta.text)
        if delta.finish is not None:
            self._end = EngineUnavailable("the sequence has brought its last delta")
        return delta

    async def suspend(self) -> Suspended:
        await checkpoint()
        if self._end is not None:
            raise self._end
        if self.generation is None:
            assert self._resumed is not None
            self._leave("was suspended")
            return self._resumed
        kept = NOTHING
        if not self.is_finished:
            kept = await self._owner.take_out(self.generation)
            if self._end is not None:
                raise self._end
        generation, carried = self.generation, self.generation.carried
        unread = _merged(self._unread) if self._unread else None
        self.is_suspended = True
        suspended = Suspended(
            fingerprint=self._fingerprint,
            n_generated=generation.n_tokens - generation.n_prompt,
            tokens=tuple(generation.tokens.tolist()),
            emitted="".join(self._emitted),
            state=Saved(
                carried.tool_mode, carried.n_reached, carried.n_prompt_computed, kept, unread
            ),
        )
        self._leave("was suspended")
        return suspended

    async def close(self) -> None:
        self._leave("is closed")

    def _leave(self, reason: str) -> None:
        if self._is_open:
            self._is_open = False
            self._end = EngineUnavailable(f"the sequence {reason}")
            self._news.set()
            self._owner.release(self)


def _merged(deltas: Sequence[Delta]) -> Delta:
    if len(deltas) == 1:
        return deltas[0]
    return Delta(
        text="".join(delta.text for delta in deltas),
        n_tokens=sum(delta.n_tokens for delta in deltas),
        logprobs=tuple(row for delta in deltas for row in delta.logprobs),
        tool_calls=tuple(call for delta in deltas for call in delta.tool_calls),
        finish=deltas[-1].finish,
        usage=deltas[-1].usage,
        pages=deltas[-1].pages,
        tokens=tuple(token for delta in deltas for token in delta.tokens),
    )
