"""Contexts: conversations that the kernel keeps for processes. One writer each; they end with their process.

A context's messages are one tuple of frozen items, so a fork shares them, and a change appears whole or not at all. Who
writes holds the context from the first look at it to the commit; a second writer is refused, since whoever came later
would speak to a conversation that it has not seen.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from aios.abi.call import Done
from aios.abi.contexts import (
    Compaction,
    ContextAppend,
    ContextClose,
    ContextFault,
    ContextFork,
    ContextId,
    ContextInfo,
    ContextInfos,
    ContextList,
    ContextMessages,
    ContextOpen,
    ContextRead,
    ContextStat,
    ContextUndo,
    Cut,
    WindowPolicy,
)
from aios.abi.types import Pid, Right, ToolSpec
from aios.config import ContextConfig
from aios.errors import Conflict, NotFound, ResourceExhausted, TooLarge
from aios.kernel.access.manager import AccessManager
from aios.kernel.clock import Clock
from aios.kernel.context.shares import CONTEXT_BYTES, SPARE_BYTES, Shares, tools_bytes
from aios.kernel.context.snapshots import Saved
from aios.kernel.context.transcript import (
    Items,
    Rewrite,
    Transcript,
    check_invariants,
    extended,
)
from aios.kernel.context.window import faulted_in, page, slimmed, undone
from aios.kernel.homes import Homes
from aios.kernel.process import Process, Run
from aios.kernel.taint import mark, source_of, take_from
from aios.kernel.taint import told as told_of

LISTED_BYTES = 1 << 20
"""What the compactions and unanswered calls of all contexts may take in one list, roughly."""
COMPACTION_BYTES = 128


@dataclass(eq=False, slots=True)
class Context:
    """One conversation. `transcript` is replaced, never changed."""

    id: ContextId
    owner: Process
    model: str = ""
    tools: tuple[ToolSpec, ...] = ()
    window: WindowPolicy = WindowPolicy.NONE
    transcript: Transcript = field(default_factory=Transcript)
    n_tokens: int = 0
    pages: tuple[bytes, ...] = ()
    """The pages of its last chat, by which its KV rows are found."""
    homes: Homes = field(default_factory=dict)
    """Where it is at home."""
    n_faults: int = 0
    writer: Run | None = None
    own_bytes: int = 0
    """What it takes besides its messages."""
    reserved_bytes: int = 0
    """What its writer has room for already."""

    @property
    def family(self) -> str:
        """As that of its process; empty for init."""
        return self.owner.family

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, roughly."""
        return self.own_bytes + self.reserved_bytes + self.transcript.size_bytes

    @property
    def items(self) -> Items:
        """What is in its window."""
        return self.transcript.items

    def forget_rows(self) -> None:
        """Other messages stand in its window now: what was computed of the old ones is of little use."""
        self.n_tokens, self.pages = 0, ()
        self.homes.clear()

    def info(self) -> ContextInfo:
        """It without its messages."""
        return ContextInfo(
            id=self.id,
            pid=self.owner.pid,
            model=self.model,
            n_messages=len(self.items),
            size_bytes=self.transcript.size_bytes,
            n_tokens=self.n_tokens,
            unanswered=self.transcript.unanswered,
            writer=self.writer.process.pid if self.writer else None,
            window=self.window,
            compactions=tuple(told(each) for each in reversed(self.transcript.rewrites)),
            n_pages=sum(map(bool, self.transcript.pages)),
            n_faults=self.n_faults,
        )


class ContextStatistics(Struct, frozen=True):
    """What the contexts of all processes take; shared messages are counted in each."""

    n_contexts: int
    n_messages: int
    size_bytes: int


class ContextTable:
    """All contexts, and the handlers of the calls that need no model."""

    def __init__(self, access: AccessManager, limits: ContextConfig, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._limits = limits
        self._by_id: dict[ContextId, Context] = {}
        self._held: dict[Pid, dict[ContextId, Context]] = {}
        self._shares = Shares()
        self._last_id = 0

    async def open(self, run: Run, call: ContextOpen) -> ContextInfo:
        """Make a context."""
        transcript = Transcript(extended((), call.messages, is_pinned=call.is_pinned))
        context = Context(ContextId(0), run.process, call.model, call.tools)
        context.window = call.window or WindowPolicy(self._limits.window)
        context.transcript = self.fitted(transcript)
        self._add(context)
        return context.info()

    async def append(self, run: Run, call: ContextAppend) -> ContextInfo:
        """Add messages."""
        with self.writing(run, call.context) as context:
            items = extended(context.items, call.messages, is_pinned=call.is_pinned)
            self.commit(context, context.transcript.put(items))
        return context.info()

    async def fork(self, run: Run, call: ContextFork) -> ContextInfo:
        """Make a context that shares the messages of another as they are now."""
        source = self.get(run, call.context)
        context = Context(ContextId(0), run.process, source.model, source.tools)
        context.window, context.transcript = source.window, source.transcript
        context.own_bytes = source.own_bytes
        context.n_tokens, context.pages = source.n_tokens, source.pages
        context.homes.update(source.homes)
        self._add(context)
        return context.info()

    async def undo(self, run: Run, call: ContextUndo) -> ContextInfo:
        """Undo the last compaction."""
        with self.writing(run, call.context) as context:
            self.commit(context, undone(context.transcript))
            context.forget_rows()
        return context.info()

    async def fault(self, run: Run, call: ContextFault) -> ContextMessages:
        """Read a page back."""
        context = self.get(run, call.context)
        items = page(context.transcript, call.pointer)
        if call.is_restoring:
            with self.writing(run, call.context):
                unix_s = self._clock.unix_s()
                after = faulted_in(context.transcript, call.pointer, unix_s=unix_s)
                self.commit(context, after)
                context.forget_rows()
        context.n_faults += 1
        return _messages(items)

    async def close(self, run: Run, call: ContextClose) -> Done:
        """Forget a context, whoever writes in it: a client that gave a chat up need not wait for its end to close."""
        self._remove(self.get(run, call.context))
        return Done()

    async def stat(self, run: Run, call: ContextStat) -> ContextInfo:
        """One context."""
        return self.get(run, call.context).info()

    async def list_all(self, run: Run, _: ContextList) -> ContextInfos:
        """The contexts that the caller reaches."""
        reached = [c for c in self._by_id.values() if self._access.may_reach(run.process, c.owner)]
        infos, room = [], LISTED_BYTES
        for context in reached:
            info = context.info()
            n_bytes = COMPACTION_BYTES * len(info.compactions) + sum(map(len, info.unanswered))
            room -= n_bytes
            if n_bytes and room < 0:
                info = replace(info, compactions=(), unanswered=())
            infos.append(info)
            if info.model or info.unanswered:  # which are words of its owner's
                take_from(run, context.owner)
        return ContextInfos(tuple(infos))

    async def read(self, run: Run, call: ContextRead) -> ContextMessages:
        """The messages of a context."""
        return _messages(self.get(run, call.context).items)

    @contextmanager
    def numbering(self, process: Process, context_id: ContextId) -> Iterator[None]:
        """Inside the block the next context gets this number, which it had under the kernel before. Nothing in it may wait.

        A fork and what it was forked from were told the same number: who comes second has its context under another, and knows it by this.
        """
        taken = self._by_id.get(context_id)
        if taken is not None and taken.owner is not process:
            context_id = process.context_names.setdefault(context_id, ContextId(self._last_id + 1))
        last, self._last_id = self._last_id, context_id - 1
        try:
            yield
        finally:
            self._last_id = max(last, context_id)

    def renumber(self, context_id: ContextId, wanted: ContextId) -> None:
        """Give a context the number that it had under the kernel before; if that is taken, its owner knows it by that."""
        taken, context = self._by_id.get(wanted), self._by_id[context_id]
        if taken is not None and taken.owner is not context.owner:
            context.owner.context_names[wanted] = context_id
            return
        del self._by_id[context_id]
        held = self._held[context.owner.pid]
        del held[context_id]
        context.id = wanted
        self._by_id[wanted] = held[wanted] = context

    def number_after(self, number: int) -> None:
        """Numbers up to this one were given by earlier kernels."""
        self._last_id = max(self._last_id, number)

    def get(self, run: Run, context_id: ContextId) -> Context:
        """The context of that id, which the caller must reach.

        Raises:
            AccessDenied: It belongs to a process that is neither the caller nor a descendant of it.
            NotFound: There is none.
        """
        context = self._by_id.get(run.process.context_names.get(context_id, context_id))
        if context is None:
            raise NotFound(
                f"no context {context_id}",
                hint="it was closed, or its process has ended; `aios ctx ls`",
            )
        self._access.check(run.process, Right.CONTEXT, context.owner)
        if context.owner is not run.process:  # it may be read or written: the mark goes both ways
            take_from(run, context.owner)
            mark(context.owner, source_of(run.process), told_of(run.process))
        return context

    @contextmanager
    def writing(self, run: Run, context_id: ContextId) -> Iterator[Context]:
        """Be the one writer of a context.

        Raises:
            AccessDenied: As `get`.
            Conflict: Somebody else is.
            NotFound: As `get`.
        """
        context = self.get(run, context_id)
        if context.writer is not None:
            raise Conflict(
                f"call {context.writer.seq} of process {context.writer.process.pid} writes in context {context_id}",
                hint="wait for it, or fork the context",
            )
        context.writer = run
        try:
            yield context
        finally:
            context.writer = None
            self._reserve(context, 0)

    def drafted(self, context: Context, items: Items) -> Transcript:
        """What a context would be with these items shown, as `commit` will take it, with room for one message more; its bytes are reserved.

        Raises:
            ResourceExhausted: All contexts of its family would take too much.
            TooLarge: A context may not hold it.
        """
        draft = self.fitted(context.transcript.put(items), n_more=1)
        draft = self._with_room(context, draft, held_bytes=context.transcript.size_bytes)
        more = draft.size_bytes - context.transcript.size_bytes
        self._shares.check_room(context.family, more)
        self._reserve(context, max(0, more))
        return draft

    def fitted(self, transcript: Transcript, *, n_more: int = 0) -> Transcript:
        """It as a context may hold it, with room for `n_more` messages: the oldest compactions and pages are forgotten if need be.

        Raises:
            TooLarge: A context may not hold it; says the numbers.
        """
        limits = self._limits
        n_messages = len(transcript.items) + n_more
        if n_messages > limits.max_messages:
            raise TooLarge(
                f"{n_messages} messages; a context holds {limits.max_messages}",
                hint="raise context.max_messages, or compact the context",
            )
        transcript = slimmed(transcript, limits.max_bytes)
        if transcript.size_bytes > limits.max_bytes:
            raise TooLarge(
                f"{transcript.size_bytes} bytes of messages; a context holds {limits.max_bytes}",
                hint="raise context.max_bytes, or compact the context by `drop-oldest`",
            )
        return transcript

    def commit(self, context: Context, transcript: Transcript, *, is_given: bool = False) -> None:
        """Make this what a context is. What a model was paid for (`is_given`) is not refused: that is for what comes next.

        Raises:
            NotFound: It was closed, or its process ended, while somebody wrote in it.
            ResourceExhausted: All contexts of its family would take too much.
            TooLarge: A context may not hold it.
        """
        if context.id not in self._by_id:
            raise NotFound(f"context {context.id} was closed, or its process ended")
        self._reserve(context, 0)
        limit = self._limits.max_bytes
        transcript = slimmed(transcript, limit) if is_given else self.fitted(transcript)
        transcript = self._with_room(context, transcript, held_bytes=context.transcript.size_bytes)
        more = transcript.size_bytes - context.transcript.size_bytes
        if not is_given:
            self._shares.check_room(context.family, more)
        self._shares.add(context.family, more)
        context.transcript = transcript

    def note(self, context: Context, rewrite: Rewrite) -> None:
        """Write a compaction into the log of the context's owner."""
        about = "about " if rewrite.is_estimated else ""
        text = (
            f"context {context.id}: {rewrite.what}, {rewrite.n_messages} messages left the window; "
            f"{about}{rewrite.n_tokens_before} -> {rewrite.n_tokens_after} tokens"
        )
        context.owner.log.write(text, stream="kernel", unix_s=self._clock.unix_s())

    def restore(self, owner: Process, model: str, saved: Saved) -> Context:
        """A context as it was when it was saved.

        Raises:
            ResourceExhausted: The process has as many as it may, or all contexts of its family would take too much.
            TooLarge: A context may not hold it.
        """
        context = Context(ContextId(0), owner, model, saved.tools)
        context.window, context.n_tokens = saved.window, saved.n_tokens
        context.pages, context.transcript = saved.pages, self.fitted(saved.transcript)
        self._add(context)
        return context

    def of(self, process: Process) -> tuple[Context, ...]:
        """The contexts of a process."""
        return tuple(self._held.get(process.pid, {}).values())

    def close_all(self, process: Process) -> None:
        """The process has ended, or its program has and is run again: its contexts go, and the numbers that it was told."""
        for context in self._held.pop(process.pid, {}).values():
            self._shares.add(context.family, -context.size_bytes)
            del self._by_id[context.id]
        process.context_names.clear()

    def statistics(self) -> ContextStatistics:
        """What they take."""
        contexts = self._by_id.values()
        return ContextStatistics(
            len(contexts),
            sum(len(c.items) for c in contexts),
            sum(c.transcript.size_bytes for c in contexts),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if a transcript is not valid, or a context is left of a process that has ended."""
        assert sum(map(len, self._held.values())) == len(self._by_id), "a context is lost"
        taken = Counter[str]()
        for context in self._by_id.values():
            assert context.owner.is_alive, f"context {context.id} has outlived its process"
            writer = context.writer
            assert writer is None or writer.seq in writer.process.runs, (
                f"context {context.id} is held by a call that is over"
            )
            check_invariants(context.items)
            taken[context.family] += context.size_bytes
        self._shares.check_invariants(taken)

    def _add(self, context: Context) -> None:
        """Take in a new context, under the next number.

        Raises:
            ResourceExhausted: Its process has as many as it may, or all contexts of its family would take too much.
            TooLarge: It may not hold its tools.
        """
        owner, limits = context.owner, self._limits
        held = self._held.get(owner.pid, {})
        if len(held) >= limits.max_contexts:
            raise ResourceExhausted(
                f"process {owner.pid} has {len(held)} contexts, the limit is {limits.max_contexts}",
                hint="close some, or raise context.max_contexts",
            )
        if not context.own_bytes:  # one that is forked from another takes what that does
            context.own_bytes = self._own_bytes(context.tools)
        context.transcript = self._with_room(
            context, context.transcript, held_bytes=-context.own_bytes
        )
        self._shares.check_room(context.family, context.size_bytes)
        self._shares.add(context.family, context.size_bytes)
        self._last_id += 1
        context.id = ContextId(self._last_id)
        self._by_id[context.id] = context
        self._held.setdefault(owner.pid, {})[context.id] = context

    def _own_bytes(self, tools: tuple[ToolSpec, ...]) -> int:
        """What a context with these tools takes besides its messages; raises TooLarge if it may not hold them."""
        n_bytes = tools_bytes(tools)
        if n_bytes > self._limits.max_bytes:
            raise TooLarge(
                f"{n_bytes} bytes of tools; a context holds {self._limits.max_bytes}",
                hint="raise context.max_bytes, or give fewer tools",
            )
        return CONTEXT_BYTES + n_bytes

    def _reserve(self, context: Context, n_bytes: int) -> None:
        """Count so many bytes more for a context than it takes."""
        if self._by_id.get(context.id) is context:  # else it was closed, and all of it given back
            self._shares.add(context.family, n_bytes - context.reserved_bytes)
            context.reserved_bytes = n_bytes

    def _with_room(
        self, context: Context, transcript: Transcript, *, held_bytes: int
    ) -> Transcript:
        """What a context is to be, of which `held_bytes` count already, with room for it in its family.

        If need be compactions and pages are forgotten, of the largest contexts first.
        """
        family = context.family
        n_over = self._shares.n_over(family, transcript.size_bytes - held_bytes)
        if not n_over:
            return transcript
        others = (c for c in self._by_id.values() if c is not context and c.family == family)
        drafts = [(each, each.transcript) for each in others]
        drafts.append((context, transcript))
        drafts = [(each, draft) for each, draft in drafts if draft.rewrites or any(draft.pages)]
        n_over += SPARE_BYTES
        for each, draft in sorted(drafts, key=lambda d: d[1].size_bytes, reverse=True):
            slim = slimmed(draft, draft.size_bytes - n_over)
            n_over -= draft.size_bytes - slim.size_bytes
            if each is context:
                transcript = slim
            else:
                self._shares.add(family, slim.size_bytes - draft.size_bytes)
                each.transcript = slim
            if n_over <= 0:
                break
        return transcript

    def _remove(self, context: Context) -> None:
        self._shares.add(context.family, -context.size_bytes)
        del self._by_id[context.id]
        held = self._held[context.owner.pid]
        del held[context.id]
        if not held:
            del self._held[context.owner.pid]


def _messages(items: Items) -> ContextMessages:
    pinned = tuple(i for i, item in enumerate(items) if item.is_pinned)
    return ContextMessages(tuple(item.message for item in items), pinned)


def cut_of(rewrite: Rewrite) -> Cut:
    """A compaction, such that it can be done again."""
    note = rewrite.note
    text, pointer = (note.message.text(), note.pointer) if note is not None else ("", 0)
    return Cut(told(rewrite), rewrite.spans, text, pointer)


def told(rewrite: Rewrite) -> Compaction:
    """A rewrite as others see it."""
    return Compaction(
        what=rewrite.what,
        n_messages=rewrite.n_messages,
        n_tokens_before=rewrite.n_tokens_before,
        n_tokens_after=rewrite.n_tokens_after,
        is_estimated=rewrite.is_estimated,
        unix_s=rewrite.unix_s,
    )
