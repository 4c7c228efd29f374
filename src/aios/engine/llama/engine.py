"""The embedded engine as the kernel sees it: `aios.engine.base.Engine` over a thread that owns llama.cpp.

This is the event loop's side. It turns jobs into generations, counts slots, and gives readers what the thread sends.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread  # noqa: TID251 - the one thread that owns the context
from types import TracebackType
from typing import TypeVar

import anyio
import anyio.to_thread
import numpy as np
from anyio.lowlevel import checkpoint

from aios.abi.types import Usage
from aios.config import EngineConfig
from aios.engine.abilities import check_abilities, needed_abilities
from aios.engine.base import (
    Ability,
    Capabilities,
    ChatPrompt,
    EngineStatistics,
    Job,
    OpenPages,
    Suspended,
    TextPrompt,
)
from aios.engine.llama.embedding import EmbedRequest, Vectors
from aios.engine.llama.generation import Generation
from aios.engine.llama.keeping import Kept
from aios.engine.llama.loading import Loaded, load
from aios.engine.llama.outbox import Outbox, Reply
from aios.engine.llama.saved import Saved, check_fingerprint, dump, saved_state
from aios.engine.llama.saved import load as load_suspended
from aios.engine.llama.sequence import LlamaSequence
from aios.errors import (
    AiosError,
    EngineFailed,
    EngineUnavailable,
    ResourceExhausted,
    TooLarge,
)

T = TypeVar("T")

ABILITIES = frozenset(Ability) - {Ability.IMAGES}
LIGHT_CHARS = 4_096
"""Up to so much text is cut into tokens in the event loop, which takes 2 ms; more in a worker thread."""
TOKEN_WEIGHT = 16
"""What a token of output that grammar and text are brought back with is worth in characters."""
N_PREPARERS = 2
"""Worker threads that prepare prompts and grammars at once; more would only slow the model."""
MAX_COUNTED_CHARS = 4 << 20
"""The longest text that is only to be counted or cut into tokens, which may take five seconds."""

log = logging.getLogger(__name__)


class LlamaEngine:
    """A GGUF model in this process.

    Args:
        path: The file.
        name: The model's name, for those who ask.
        config: Its slots, window, threads and prefill chunk are used.
        open_pages: Opens the store for what leaves the slots; None keeps nothing.
    """

    def __init__(
        self, path: Path, *, name: str, config: EngineConfig, open_pages: OpenPages | None = None
    ) -> None:
        self._path = path
        self._open_pages = open_pages
        self._name = name
        self._config = config
        self._thread: Thread | None = None
        self._loaded: Loaded | None = None
        self._gone = "has not been started"
        self._is_closed = False
        self._preparers = anyio.CapacityLimiter(N_PREPARERS)
        self._counter = anyio.CapacityLimiter(1)
        """Who only counts holds no slot, and keeps nobody waiting who does."""
        self._running: set[LlamaSequence] = set()
        self._waiting: set[Callable[[AiosError], None]] = set()
        self._n_sequences = 0
        self._n_prompt_tokens = 0

    @property
    def capabilities(self) -> Capabilities:
        loaded = self._get_loaded()
        return Capabilities(
            model=self._name,
            window_tokens=loaded.context.window_tokens,
            n_slots=len(loaded.slots),
            abilities=ABILITIES,
            fingerprint=loaded.fingerprint,
            note=loaded.note,
        )

    # --- from start to close -------------------------------------------------------------------------------------

    async def start(self) -> None:
        ready: Reply[None] = Reply()
        self._thread = Thread(
            target=self._main, args=(Outbox(), ready), name=f"engine-{self._name}", daemon=True
        )
        self._thread.start()
        await self._answer(ready)

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._end_all("was closed", EngineUnavailable)
        if self._thread is None:
            return
        if self._loaded is not None:
            self._loaded.loop.stop_nowait()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)
            for _ in range(N_PREPARERS):  # wait for who still reads the model's vocabulary
                await self._preparers.acquire_on_behalf_of(object())
            await self._counter.acquire_on_behalf_of(object())
        if self._loaded is not None:
            self._loaded.model.close()

    def _main(self, outbox: Outbox, ready: Reply[None]) -> None:
        """The engine's thread, from beginning to end."""
        with ExitStack() as stack:
            stack.push(partial(self._note_end, outbox))
            self._loaded = loaded = load(self._path, self._config, outbox, self._open_pages)
            stack.callback(loaded.free_contexts)
            outbox.put(self._note_ready, ready)
            outbox.flush()
            if not self._is_closed:  # else it was closed while it loaded
                loaded.loop.run()

    def _note_ready(self, ready: Reply[None]) -> None:
        if not self._is_closed:
            self._gone = ""
        ready.receive(None)

    def _note_end(
        self,
        outbox: Outbox,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        """Tell the event loop why the thread ends, if that was not meant to be."""
        if error is not None:
            if self._loaded is not None or not isinstance(error, AiosError):
                log.critical("the thread of engine %s broke", self._name, exc_info=error)
            outbox.put(self._broke, error)
            outbox.flush()
        return True

    def _broke(self, error: BaseException) -> None:
        if isinstance(error, AiosError) and self._loaded is None:
            for fail in self._waiting:  # a start that failed, for a reason that says what to do
                fail(error)
            self._gone = f"could not be loaded: {error.message}"
        else:
            self._end_all(f"broke: {type(error).__name__}: {error}", EngineFailed)

    def _end_all(self, reason: str, error: type[AiosError]) -> None:
        """Nothing more comes from the engine: tell everyone who waits for something."""
        self._gone = self._gone or reason
        for fail in [sequence.fail for sequence in self._running] + list(self._waiting):
            fail(error(f"engine {self._name} {reason}"))

    # --- generations ---------------------------------------------------------------------------------------------

    async def open(self, job: Job, suspended: Suspended | None = None) -> LlamaSequence:
        await checkpoint()
        loaded = self._get_open()
        if len(self._running) >= len(loaded.slots):
            raise ResourceExhausted(
                f"all {len(loaded.slots)} slots are taken", hint="close a sequence first"
            )
        check_abilities(needed_abilities(job), self.capabilities)
        if suspended is not None:
            check_fingerprint(suspended.fingerprint, loaded.fingerprint)
        sequence = LlamaSequence(self, loaded.fingerprint, suspended)
        with ExitStack() as undo:
            self._running.add(sequence)
            undo.callback(self._running.discard, sequence)
            if not sequence.is_finished:
                sequence.generation = await self._prepare(job, suspended, sequence)
                sequence.generation.is_urgent = job.is_urgent
                self._get_open().loop.open_nowait(sequence.generation)
            undo.pop_all()
        return sequence

    async def take_out(self, generation: Generation) -> Kept:
        """Free the slot of a generation, wait until the thread will not touch it again, and say what is kept of it."""
        reply: Reply[Kept] = Reply()
        self._get_open().loop.suspend_nowait(generation, reply)
        return await self._answer(reply)

    def release(self, sequence: LlamaSequence) -> None:
        """The sequence no longer occupies its slot. If it was not suspended, nothing is kept for it."""
        self._running.discard(sequence)
        is_useless = not sequence.is_suspended and sequence.generation is not None
        if is_useless and self._loaded is not None:
            assert sequence.generation is not None
            self._loaded.loop.close_nowait(sequence.generation)

    # --- suspended generations -----------------------------------------------------------------------------------

    def drop(self, suspended: Suspended) -> None:
        if isinstance(suspended.state, Saved) and self._loaded is not None:
            pin = suspended.state.kept.pin
            if pin and self._loaded.keeper is not None:
                self._loaded.keeper.unpin(pin)

    async def dump(self, suspended: Suspended) -> bytes:
        await checkpoint()
        loaded = self._get_open()
        check_fingerprint(suspended.fingerprint, loaded.fingerprint)
        saved = saved_state(suspended)
        if saved.kept.pin and loaded.keeper is not None:
            flush = partial(loaded.keeper.flush, np.array(suspended.tokens, np.int32), saved.kept)
            await anyio.to_thread.run_sync(flush, limiter=self._preparers)
        return dump(suspended)

    def load(self, data: bytes) -> Suspended:
        return load_suspended(data, self._get_open().fingerprint)

    async def _prepare(
        self, job: Job, suspended: Suspended | None, sequence: LlamaSequence
    ) -> Generation:
        compiler = self._get_open().compiler
        if suspended is not None:
            weight = _weight(job) + suspended.n_generated * TOKEN_WEIGHT
            resume = partial(compiler.resume, job, suspended, sequence)
            generation = await self._run(resume, weight)
        else:
            generation = await self._run(partial(compiler.compile, job, sequence), _weight(job))
            self._n_sequences += 1
            self._n_prompt_tokens += generation.n_prompt
        await self._fetch(generation)
        return generation

    async def _fetch(self, generation: Generation) -> None:
        """Read from disk what is kept there of a generation's tokens, for the engine's thread must not wait for that."""
        keeper, tokens = self._get_open().keeper, generation.tokens[:-1]
        n_kept = generation.kept.n_tokens
        if keeper is not None and keeper.is_on_disk(tokens, n_kept=n_kept):
            fetch = partial(keeper.fetch, tokens, n_kept=n_kept)
            await anyio.to_thread.run_sync(fetch, limiter=self._preparers)

    # --- vectors and tokens --------------------------------------------------------------------------------------

    async def embed(self, texts: tuple[str, ...]) -> tuple[Vectors, Usage]:
        await checkpoint()
        loaded = self._get_open()
        if not texts:
            return (), Usage()
        n_chars = sum(len(text) for text in texts)
        tokens = await self._run(lambda: [loaded.compiler.embeddable(t) for t in texts], n_chars)
        request = EmbedRequest(tokens, Reply())
        self._get_open().loop.embed_nowait(request)
        try:
            vectors = await self._answer(request.reply)
        finally:
            request.is_closed = True
        return vectors, Usage(prompt_tokens=sum(len(text) for text in tokens))

    async def tokenize(self, text: str) -> tuple[int, ...]:
        await checkpoint()
        compiler = self._get_open().compiler
        _check_length(len(text))
        return await self._count(lambda: tuple(compiler.text_tokens(text).tolist()), len(text))

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        await checkpoint()
        compiler = self._get_open().compiler
        _check_length(prompt.n_chars())
        return await self._count(partial(compiler.count_tokens, prompt), _weight_of_chat(prompt))

    # --- small print ---------------------------------------------------------------------------------------------

    def statistics(self) -> EngineStatistics:
        if self._loaded is None:
            return EngineStatistics()
        counters, slots = self._loaded.loop.counters, self._loaded.slots
        return EngineStatistics(
            n_running=len(self._running),
            n_sequences=self._n_sequences,
            n_prompt_tokens=self._n_prompt_tokens,
            n_prompt_tokens_computed=counters.n_prompt_tokens_computed,
            n_generated_tokens=counters.n_generated_tokens,
            prefill_s=counters.prefill_s,
            decode_s=counters.decode_s,
            extra={
                "copied_tokens": slots.n_copied_tokens,
                "suspended": slots.n_suspended,
                "recomputed_tokens": counters.n_recomputed_tokens,
                "suspend_s": slots.suspend_s,
                "resume_s": slots.resume_s,
                "prefill_steps": counters.n_prefill_steps,
                "decode_steps": counters.n_decode_steps,
                "aborted_steps": counters.n_aborted_steps,
            },
        )

    async def _run(self, function: Callable[[], T], weight: float) -> T:
        """Call a function that keeps the processor busy: here if it takes no time, else in a worker thread."""
        return await _call(function, weight, self._preparers)

    async def _count(self, function: Callable[[], T], weight: float) -> T:
        """The same of what only counts: one after another."""
        return await _call(function, weight, self._counter)

    async def _answer(self, reply: Reply[T]) -> T:
        """Wait for the thread's answer, or for news that the thread has ended."""
        self._waiting.add(reply.fail)
        try:
            return await reply.wait()
        finally:
            self._waiting.discard(reply.fail)

    def _get_loaded(self) -> Loaded:
        if self._loaded is None:
            raise EngineUnavailable(f"engine {self._name} {self._gone}")
        return self._loaded

    def _get_open(self) -> Loaded:
        if self._gone:
            raise EngineUnavailable(
                f"engine {self._name} {self._gone}", hint="start the kernel again"
            )
        return self._get_loaded()


async def _call(function: Callable[[], T], weight: float, threads: anyio.CapacityLimiter) -> T:
    if weight <= LIGHT_CHARS:
        return function()
    return await anyio.to_thread.run_sync(function, limiter=threads)


def _check_length(n_chars: int) -> None:
    if n_chars > MAX_COUNTED_CHARS:
        raise TooLarge(
            f"the text has {n_chars} characters; {MAX_COUNTED_CHARS} are cut into tokens at most",
            hint="cut it in parts",
        )


def _weight(job: Job) -> float:
    """How much there is to prepare, in characters; grammars have to be compiled, which may take a second."""
    if job.constraint is not None:
        return float("inf")
    if isinstance(job.prompt, TextPrompt):
        return len(job.prompt.text)
    return _weight_of_chat(job.prompt)


def _weight_of_chat(prompt: ChatPrompt) -> float:
    return float("inf") if prompt.tools else prompt.n_chars()
