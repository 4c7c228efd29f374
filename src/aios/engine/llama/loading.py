"""From a file to an engine that is ready to run. Done in the engine's thread, for it takes seconds."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
from msgspec import Struct

from aios.config import EngineConfig
from aios.engine.base import OpenPages
from aios.engine.batch import Batcher
from aios.engine.llama.binding import Batch, Context, Model, is_cpu_only
from aios.engine.llama.embedding import Embedder
from aios.engine.llama.keeping import Keeper
from aios.engine.llama.loop import EngineLoop
from aios.engine.llama.outbox import Outbox
from aios.engine.llama.paging import open_pager
from aios.engine.llama.prompt import PromptCompiler
from aios.engine.llama.slots import Slots
from aios.engine.llama.states import States
from aios.engine.machine import count_cores
from aios.errors import EngineUnavailable

DEFAULT_WINDOW_TOKENS = 4096
"""Where the configuration names none. The cells of all slots take their memory from the start."""
N_DECODES = 2
"""Decode steps between two prefill chunks."""
KV_SHARES = {"f16": 1.0, "q8_0": 34 / 64}
"""Bytes of a number in the KV cache, as a share of 16 bits; 32 numbers in q8_0 have a scale of two bytes."""
MAX_SCORES_BYTES = 256 << 20
"""The most that the attention scores of one prefill step may take in memory."""
FINGERPRINT_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Loaded(Struct, frozen=True):
    """The parts of an engine, ready to run."""

    model: Model
    context: Context
    embedder: Embedder
    slots: Slots
    keeper: Keeper | None
    loop: EngineLoop
    compiler: PromptCompiler
    fingerprint: str
    note: str

    def free_contexts(self) -> None:
        """Free what belongs to the engine's thread. The model stays: others may be reading its vocabulary."""
        self.embedder.close()
        self.context.close()


def load(
    path: Path, config: EngineConfig, outbox: Outbox, open_pages: OpenPages | None = None
) -> Loaded:
    """Load a model and make room for its slots.

    Args:
        path: The GGUF file.
        config: Slots, window, threads and prefill chunk are used.
        outbox: The way back to the event loop.
        open_pages: Opens the store for what leaves the slots; None keeps nothing.

    Raises:
        EngineUnavailable: There is no room for the slots.
        ModelMissing: The file is absent or damaged.
    """
    started_s = perf_counter()
    log.info("loading %s", path)
    with ExitStack() as undo:
        model = Model(path)
        undo.callback(model.close)
        loaded = _load_parts(model, config, outbox, undo=undo, open_pages=open_pages)
        undo.pop_all()
    log.info("loaded %s in %.1f s", model.description, perf_counter() - started_s)
    return loaded


@contextmanager
def open_compiler(path: Path) -> Iterator[PromptCompiler]:
    """What makes a model's prompts, without an engine to run it.

    Raises:
        ModelMissing: The file is absent or damaged.
    """
    model = Model(path)
    try:
        yield PromptCompiler(model, window_tokens=model.n_ctx_train)
    finally:
        model.close()


def _load_parts(
    model: Model,
    config: EngineConfig,
    outbox: Outbox,
    *,
    undo: ExitStack,
    open_pages: OpenPages | None,
) -> Loaded:
    context, is_flash = _open_context(model, config)
    undo.callback(context.close)
    _warm_up(context)
    compiler = PromptCompiler(model, window_tokens=context.window_tokens)
    embedder = Embedder(model, outbox, n_threads=_n_threads(config))
    mark = fingerprint(model, config.kv_type, flash=is_flash)
    notes = [compiler.note]
    keeper = _open_keeper(context, config, mark, open_pages)
    if isinstance(keeper, States):
        notes.append("its cells cannot be paged: whole states are kept, in memory only")
    slots = Slots(context, config.n_slots, keeper)
    batcher = Batcher(config.prefill_chunk_tokens, N_DECODES)
    loop = EngineLoop(context, slots, batcher=batcher, embedder=embedder, outbox=outbox)
    if config.window_tokens > model.n_ctx_train:
        notes.append(f"the model's own window is {model.n_ctx_train} tokens")
    return Loaded(
        model,
        context,
        embedder,
        slots,
        keeper,
        loop,
        compiler,
        fingerprint=mark,
        note="; ".join(note for note in notes if note),
    )


def _open_context(model: Model, config: EngineConfig) -> tuple[Context, bool]:
    """A context as configured, and whether its attention is llama.cpp's flash attention."""
    window_tokens = min(config.window_tokens or DEFAULT_WINDOW_TOKENS, model.n_ctx_train)
    cell_bytes = model.cell_bytes * KV_SHARES[config.kv_type]
    _check_memory(int(config.n_slots * window_tokens * cell_bytes))
    n_batch = max(config.prefill_chunk_tokens, config.n_slots)
    is_flash = needs_flash(
        config.kv_type,
        scores_bytes=4 * model.n_heads * n_batch * window_tokens,
        is_on_cpu=is_cpu_only(),
    )
    context = Context(
        model,
        n_slots=config.n_slots,
        window_tokens=window_tokens,
        n_batch=n_batch,
        n_threads=_n_threads(config),
        kv_type=config.kv_type,
        flash=is_flash,
    )
    return context, is_flash


def _n_threads(config: EngineConfig) -> int:
    return config.n_threads or count_cores()


def _open_keeper(
    context: Context, config: EngineConfig, mark: str, open_pages: OpenPages | None
) -> Keeper | None:
    """Pages if the cells can be paged, else whole states; nothing if nothing is to be kept."""
    if open_pages is None:
        return None
    pager = open_pager(context, n_slots=config.n_slots, fingerprint=mark, open_pages=open_pages)
    return pager or States(context, config.states_bytes)


def needs_flash(kv_type: str, *, scores_bytes: int, is_on_cpu: bool) -> bool:
    """Whether attention should be computed in tiles, by llama.cpp's flash attention, or by plain matrix products.

    On a processor the tiles are for pieces of 64 tokens and more; shorter ones, and every decode step, go cell by cell,
    which takes three times as long (`docs/adr/0021-plain-attention.md`). But plain products need the scores in memory, and
    numbers of V that can be transposed.
    """
    return not is_on_cpu or kv_type != "f16" or scores_bytes > MAX_SCORES_BYTES


def _check_memory(needed_bytes: int) -> None:
    """Refuse cells that memory cannot hold; the system would grant them, and then kill somebody as they are used."""
    free_bytes = find_free_memory()
    if is_cpu_only() and free_bytes is not None and needed_bytes > free_bytes:
        raise EngineUnavailable(
            f"the cells of all slots take {needed_bytes / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} GB are free",
            hint="set a smaller engine.n_slots or engine.window_tokens",
        )


def find_free_memory() -> int | None:
    """Bytes that could be taken without swapping, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(words[1]) * 1024 for words in found), None)


def _warm_up(context: Context) -> None:
    """Read all weights once, here and not in somebody's first token."""
    batch = Batch(1)
    batch.add(0, 0, np.zeros(1, np.int32))
    context.decode(batch)
    context.keep(0, 0)


def fingerprint(model: Model, kv_type: str, *, flash: bool) -> str:
    """What suspended state depends on: the file, by its size, its first and its last megabyte, and how cells are kept.

    With and without flash attention V lies otherwise, and sums are rounded otherwise.
    """
    digest = hashlib.blake2b(digest_size=12)
    size_bytes = model.path.stat().st_size
    with model.path.open("rb") as file:
        digest.update(file.read(FINGERPRINT_BYTES))
        file.seek(max(0, size_bytes - FINGERPRINT_BYTES))
        digest.update(file.read(FINGERPRINT_BYTES))
    kept = kv_type if flash else f"{kv_type}-plain"
    return f"llama:{model.description}:{size_bytes}:{digest.hexdigest()}:kv-{kept}"
