"""THE ENGINE LOOP: where tokens come from.

One thread owns the context, and this is what it does: take commands, `schedule` a batch, `run` it, `postprocess` what
came out, and tell the event loop, once a step. Its time goes into `llama_decode`, during which Python is free for others.

    the event loop                           the engine's thread

    open, close, suspend ──── inbox ────> take commands <─┐
                                          schedule        │
                                          run             │
    readers <──────────────── outbox <─── postprocess ────┘

What is computed next is decided by `aios.engine.batch`, who sits in which slot by `slots`, which token comes next by
`generation`. Continuous batching follows Orca (OSDI 2022) and vLLM (arXiv 2309.06180); prefill in chunks, Sarathi (arXiv
2308.16369).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock
from time import perf_counter

from msgspec.structs import replace

from aios.engine.batch import Batcher, Step
from aios.engine.llama.binding import Batch, Context
from aios.engine.llama.embedding import Embedder, EmbedRequest
from aios.engine.llama.generation import Generation
from aios.engine.llama.keeping import Kept
from aios.engine.llama.outbox import Outbox, Reply
from aios.engine.llama.slots import Slots
from aios.errors import AiosError

Command = Callable[[], object]


@dataclass
class Counters:
    """What the loop has done; written by its thread, read by anyone."""

    n_generated_tokens: int = 0
    n_prompt_tokens_computed: int = 0
    n_recomputed_tokens: int = 0
    """Of suspended generations, which were in some slot's cells before."""
    n_prefill_steps: int = 0
    n_decode_steps: int = 0
    n_aborted_steps: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class EngineLoop:
    """Runs generations in the slots of a context.

    `run` is the thread. The methods that end in `_nowait` are for the event loop: they leave a command and return.
    """

    def __init__(
        self,
        context: Context,
        slots: Slots,
        *,
        batcher: Batcher,
        embedder: Embedder,
        outbox: Outbox,
    ) -> None:
        self.counters = Counters()
        self._context = context
        self._slots = slots
        self._batcher = batcher
        self._embedder = embedder
        self._outbox = outbox
        self._batch = Batch(max(batcher.chunk_tokens, len(slots)))
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._is_stopping = False
        self._in_step: list[Generation] = []
        self._lock = Lock()  # `_in_step`, `is_closed` and the abort flag of the context must agree

    def open_nowait(self, generation: Generation) -> None:
        """Seat a generation; a slot must be free when the commands before this one are done."""
        self._inbox.put(partial(self._slots.seat, generation))

    def close_nowait(self, generation: Generation) -> None:
        """Free a generation's slot; the running step is aborted if it is of use to nobody else."""
        with self._lock:
            generation.is_closed = True
            if self._in_step and all(each.is_closed for each in self._in_step):
                self._context.abort(on=True)
        self._inbox.put(partial(self._slots.discard, generation))

    def suspend_nowait(self, generation: Generation, reply: Reply[Kept]) -> None:
        """Free a generation's slot, and answer with what is kept once the loop has nothing more to do with it."""
        self._inbox.put(partial(self._suspend, generation, reply))

    def embed_nowait(self, request: EmbedRequest) -> None:
        """Compute vectors, between the steps of the generations."""
        self._inbox.put(partial(self._embedder.add, request))

    def stop_nowait(self) -> None:
        """End `run`, in the middle of a step if need be."""
        with self._lock:
            self._is_stopping = True
            self._context.abort(on=True)
        self._inbox.put(lambda: None)

    def run(self) -> None:
        """Step until stopped; sleep while there is nothing to do.

        Raises:
            EngineFailed: llama.cpp could not compute a batch.
        """
        while not self._is_stopping:
            if self._inbox.empty() and self._has_work:
                self.step()
            else:
                self._inbox.get()()
                self._outbox.flush()

    def step(self) -> None:
        """A batch for the generations, and a chunk of embeddings."""
        step = self._schedule()
        assert step is not None or not self._slots.n_seated  # else nobody would ever go on
        if step is not None:
            is_done = self._run(step)
            self._postprocess(step, is_done=is_done)
        if self._embedder.has_work:
            self._embedder.step()
        self._outbox.flush()

    @property
    def _has_work(self) -> bool:
        return self._slots.n_seated > 0 or self._embedder.has_work

    def _suspend(self, generation: Generation, reply: Reply[Kept]) -> None:
        self._outbox.put(reply.receive, self._slots.suspend(generation))

    def _schedule(self) -> Step | None:
        """Choose the next batch; before a prefill, copy what other slots hold of the prompts."""
        progress = self._slots.progress()
        held: frozenset[int] = frozenset()
        if self._batcher.is_prefill_due(progress):
            held = self._slots.share()
            progress = self._slots.progress()
        return self._batcher.next_step(progress, held)

    def _run(self, step: Step) -> bool:
        """Compute a batch. Returns: False when it was aborted, for nobody wants it any more."""
        generations = [self._slots.sitter(piece.slot) for piece in step.pieces]
        self._batch.clear()
        for piece, generation in zip(step.pieces, generations, strict=True):
            tokens = generation.tokens[piece.start : piece.end]
            want = piece.end == generation.n_tokens
            generation.computing = (piece.start, piece.end)
            self._batch.add(piece.slot, piece.start, tokens, want=want)
        with self._lock:
            self._in_step = generations
            is_useless = all(generation.is_closed for generation in generations)
            self._context.abort(on=is_useless or self._is_stopping)
        started_s = perf_counter()
        is_done = self._context.decode(self._batch)
        elapsed_s = perf_counter() - started_s
        with self._lock:
            self._in_step = []
        self._count(step, elapsed_s, is_done=is_done)
        return is_done

    def _postprocess(self, step: Step, *, is_done: bool) -> None:
        """Note what the cells hold now, and let those whose tokens are all computed choose the next."""
        row = -1
        for piece in step.pieces:
            row += piece.end - piece.start
            if not is_done:  # what the cells hold from here on is unknown
                self._slots.cut(piece.slot, piece.start)
                continue
            generation = self._slots.sitter(piece.slot)
            self._slots.fill(piece.slot, piece.end)
            n_reached = min(piece.end, generation.carried.n_reached)
            self.counters.n_recomputed_tokens += max(0, n_reached - piece.start)
            self.counters.n_prompt_tokens_computed += generation.note_computed(
                piece.start, piece.end
            )
            if piece.end == generation.n_tokens:
                self._advance(generation, row)

    def _advance(self, generation: Generation, row: int) -> None:
        """Choose a token and tell the reader; at the end of the generation, free its slot."""
        outcome = generation.try_advance(self._context.logits(row))
        if isinstance(outcome, AiosError):
            self._slots.leave(generation)
            self._outbox.put(generation.reader.fail, outcome)
            return
        self.counters.n_generated_tokens += outcome.n_tokens
        if outcome.finish is not None:
            self._slots.leave(generation)
            outcome = replace(outcome, pages=self._slots.pages(generation))
        self._outbox.put(generation.reader.receive, outcome)

    def _count(self, step: Step, elapsed_s: float, *, is_done: bool) -> None:
        counters = self.counters
        counters.n_aborted_steps += not is_done
        if step.is_prefill:
            counters.n_prefill_steps += 1
            counters.prefill_s += elapsed_s
        else:
            counters.n_decode_steps += 1
            counters.decode_s += elapsed_s
