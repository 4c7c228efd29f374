"""The only file that touches llama.cpp: a model, a context of slots, a batch.

Thin on purpose: it owns pointers and their lifetimes, turns return codes into errors and hands logits out as numpy
views without a copy. What to compute and when is decided elsewhere. Nothing here is thread-safe but the `Model`'s
read-only methods: a `Context` belongs to one thread.
"""

import ctypes
import functools
from collections import deque
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from aios.engine.llama.marks import Special
from aios.errors import EngineFailed, EngineUnavailable, ModelMissing

Tokens = NDArray[np.int32]

GGUF_MAGIC = b"GGUF"
N_LOG_LINES = 32
N_QUOTED_LINES = 3
MAX_PIECE_BYTES = 4096
FLASH_ATTENTION = {False: 0, True: 1}  # llama.h
KV_TYPES = {"f16": 1, "q8_0": 8}  # ggml.h
DECODED, ABORTED = 0, 2  # what `llama_decode` returns
LOG_WARNING, LOG_ERROR = 3, 4  # ggml.h


def is_built_with_amx() -> bool:
    """Whether llama.cpp would compute with AMX tiles here. Built by GCC it crashes then, so its AMX buffers stay unused.

    It keeps the tile configuration in a local variable, and GCC's `_tile_loadconfig` names only its first 8 bytes as read,
    so the optimiser drops the rest and the processor refuses what is left. `scripts/setup` builds without AMX.
    """
    return b"AMX_INT8 = 1" in lib.llama_print_system_info()


class Model:
    """The weights and the vocabulary of a GGUF file.

    Raises:
        ModelMissing: The file is absent, is no GGUF, or llama.cpp cannot load it.
    """

    def __init__(self, path: Path) -> None:
        _backend().clear()
        _check_gguf(path)
        params = lib.llama_model_default_params()
        params.use_extra_bufts = not is_built_with_amx()
        self._pointer: Any = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._pointer:
            raise ModelMissing(
                f"llama.cpp cannot load {path}: {last_log_lines()}",
                hint="the file is damaged or needs another llama.cpp; `aios pull` fetches one that works",
            )
        self.path = path
        self.vocab: Any = lib.llama_model_get_vocab(self._pointer)
        """The `llama_vocab *`, for libraries that read it themselves."""
        self.n_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        self.n_embd: int = lib.llama_model_n_embd(self._pointer)
        self.n_heads: int = max(1, lib.llama_model_n_head(self._pointer))
        self.n_ctx_train: int = lib.llama_model_n_ctx_train(self._pointer)
        self.has_decoder: bool = lib.llama_model_has_decoder(self._pointer)
        self.bos: int = lib.llama_vocab_bos(self.vocab)
        self.eos: int = lib.llama_vocab_eos(self.vocab)
        self.sliding_tokens: int = lib.llama_model_n_swa(self._pointer)
        """How far some of its layers look back; 0 if all of them see everything."""
        self.is_recurrent: bool = lib.llama_model_is_recurrent(
            self._pointer
        ) or lib.llama_model_is_hybrid(self._pointer)
        self.adds_bos: bool = lib.llama_vocab_get_add_bos(self.vocab)
        self._pieces: dict[tuple[int, bool], bytes] = {}

    @property
    def pointer(self) -> Any:  # noqa: ANN401 - a ctypes pointer
        """The `llama_model *`; None once closed."""
        return self._pointer

    def close(self) -> None:
        """Free the weights; contexts must be closed before. Twice is nothing."""
        if self._pointer:
            lib.llama_model_free(self._pointer)
            self._pointer = None

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        """The ids of a text, without BOS or EOS added; `special` reads `<|im_end|>` and its like as one token."""
        data = text.encode("utf-8", "surrogatepass")
        out = np.empty(len(data) + 8, np.int32)
        n_tokens: int = lib.llama_tokenize(
            self.vocab,
            data,
            len(data),
            out.ctypes.data_as(lib.llama_token_p),
            len(out),
            False,  # no BOS or EOS
            special,
        )
        if n_tokens < 0:
            raise EngineFailed(f"llama.cpp cannot tokenize a text of {len(data)} bytes: {n_tokens}")
        return out[:n_tokens].copy()

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for in a text; control tokens stand for none."""
        return self._read_piece(token, special=False)

    def token_text(self, token: int) -> str:
        """The text of a token as a template writes it, control tokens included; empty for no token."""
        if token < 0:
            return ""
        return self._read_piece(token, special=True).decode("utf-8", "replace")

    def is_eog(self, token: int) -> bool:
        """Whether a token ends a generation."""
        ends: bool = lib.llama_vocab_is_eog(self.vocab, token)
        return ends

    @functools.cached_property
    def eog_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""
        return frozenset(token for token in range(self.n_vocab) if self.is_eog(token))

    @functools.cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """The texts of the control tokens, which the text of a message must never bring about."""
        controls = (t for t in range(self.n_vocab) if lib.llama_vocab_is_control(self.vocab, t))
        return tuple(text for text in map(self.token_text, controls) if text)

    @functools.cached_property
    def special_tokens(self) -> tuple[Special, ...]:
        """What `tokenize` looks for in a text first; without `special`, what is no control token."""
        attributes = [lib.llama_vocab_get_attr(self.vocab, t) for t in range(self.n_vocab)]
        hidden = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        return tuple(
            Special(
                self.token_text(token),
                is_control=bool(attribute & hidden),
                has_lstrip=bool(attribute & lib.LLAMA_TOKEN_ATTR_LSTRIP),
            )
            for token, attribute in enumerate(attributes)
            if attribute & (hidden | lib.LLAMA_TOKEN_ATTR_USER_DEFINED)
        )

    @functools.cached_property
    def longest_piece_bytes(self) -> int:
        """Bytes of the longest token: a text of n bytes has at least n divided by this many tokens."""
        # Without room llama.cpp says how much a piece would take, as a negative number.
        measure, vocab = lib.llama_token_to_piece, self.vocab
        longest: int = -min(
            measure(vocab, token, None, 0, 0, False) for token in range(self.n_vocab)
        )
        return longest

    @property
    def chat_template(self) -> str:
        """The jinja source of the chat template in the file, or empty."""
        source: bytes | None = lib.llama_model_chat_template(self._pointer, None)
        return (source or b"").decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """Architecture, size and quantisation, in llama.cpp's words."""
        out = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self._pointer, out, len(out))
        return out.value.decode("utf-8", "replace")

    def find_meta(self, key: str) -> str | None:
        """A value of the file's metadata."""
        out = ctypes.create_string_buffer(1024)
        if lib.llama_model_meta_val_str(self._pointer, key.encode(), out, len(out)) < 0:
            return None
        return out.value.decode("utf-8", "replace")

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        size: int = lib.llama_model_size(self._pointer)
        return size

    @property
    def n_params(self) -> int:
        """Parameters of the model."""
        n: int = lib.llama_model_n_params(self._pointer)
        return n

    @property
    def cell_bytes(self) -> int:
        """Bytes that the cell of one token takes in all layers, keys and values in 16 bits; an estimate."""
        key_length = self.find_meta(
            f"{self.find_meta('general.architecture')}.attention.key_length"
        )
        head_size = int(key_length) if key_length else self.n_embd // self.n_heads
        n_rows: int = lib.llama_model_n_layer(self._pointer) * lib.llama_model_n_head_kv(
            self._pointer
        )
        return 2 * 2 * n_rows * head_size

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        found = self._pieces.get((token, special))
        if found is None:
            out = ctypes.create_string_buffer(MAX_PIECE_BYTES)
            n_bytes: int = lib.llama_token_to_piece(self.vocab, token, out, len(out), 0, special)
            found = self._pieces[token, special] = out.raw[:n_bytes] if n_bytes > 0 else b""
        return found


class Batch:
    """Tokens for one `decode`, in arrays that llama.cpp reads where they are."""

    def __init__(self, n_max: int) -> None:
        self._tokens = np.zeros(n_max, np.int32)
        self._positions = np.zeros(n_max, np.int32)
        self._n_seq_ids = np.ones(n_max, np.int32)
        self._slots = np.zeros(n_max, np.int32)
        self._wanted = np.zeros(n_max, np.int8)
        # llama.cpp takes a list of sequences for each token; ours always has one, so entry i points at `_slots[i]`.
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(n_max, dtype=np.uintp)
        self._struct = lib.llama_batch(
            0,
            _as(self._tokens, lib.llama_token),
            None,
            _as(self._positions, lib.llama_pos),
            _as(self._n_seq_ids, ctypes.c_int32),
            _as(self._slot_pointers, ctypes.POINTER(lib.llama_seq_id)),
            _as(self._wanted, ctypes.c_int8),
        )
        self.n_tokens = 0

    def clear(self) -> None:
        """Empty it."""
        self.n_tokens = 0

    def add(self, slot: int, position: int, tokens: Tokens, *, want: bool | int = True) -> int:
        """Append a run of tokens of one slot; `want` asks for what comes out of its last token.

        Returns: The row of that last token, for `Context.logits`.
        """
        start, end = self.n_tokens, self.n_tokens + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self._slots[start:end] = slot
        self._wanted[start:end] = 0
        self._wanted[end - 1] = want
        self.n_tokens = end
        return end - 1

    def want_all(self) -> None:
        """Ask for what comes out of every token."""
        self._wanted[: self.n_tokens] = 1

    @property
    def struct(self) -> Any:  # noqa: ANN401 - a ctypes structure
        """The `llama_batch`; valid while this object lives."""
        self._struct.n_tokens = self.n_tokens
        return self._struct


class Context:
    """KV cells for `n_slots` sequences, each in a stream of its own, and the compute to fill them.

    With one stream a slot (`kv_unified` off) a running sequence does not pay for the cells of idle ones.
    With `flash` attention the scores are never in memory, and V is kept in rows; without, V is kept transposed.

    Raises:
        EngineUnavailable: There is no room for it.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_slots: int,
        window_tokens: int,
        n_batch: int,
        n_threads: int,
        kv_type: str = "f16",
        flash: bool = False,
        embeddings: bool = False,
    ) -> None:
        _backend().clear()
        self._stop_flag = ctypes.create_string_buffer(2)
        params = lib.llama_context_default_params()
        params.n_ctx = n_slots * window_tokens
        params.n_seq_max = n_slots
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = n_threads
        params.kv_unified = False
        params.type_k = params.type_v = KV_TYPES[kv_type]
        params.flash_attn_type = FLASH_ATTENTION[flash]
        params.no_perf = True
        params.embeddings = embeddings
        if embeddings:
            params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        else:
            params.n_outputs_max = n_slots
        # A Python callback would take the interpreter's lock once for each of a thousand nodes of the graph. `strlen` is
        # a native function of the right shape: 0 (go on) for "", 1 (stop) once the first byte of the flag is set.
        params.abort_callback = ctypes.cast(_native("strlen"), lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._stop_flag)
        self._n_vocab, self._n_embd = model.n_vocab, model.n_embd
        self._sliding_tokens = model.sliding_tokens
        self._pointer: Any = lib.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise EngineUnavailable(
                f"no room for {n_slots} slots of {window_tokens} tokens: {last_log_lines()}",
                hint="set a smaller engine.n_slots or engine.window_tokens",
            )
        self._memory: Any = lib.llama_get_memory(self._pointer)
        self._n_batch: int = lib.llama_n_batch(self._pointer)
        self.window_tokens: int = min(window_tokens, lib.llama_n_ctx_seq(self._pointer))
        self.max_cut_tokens: int = self.window_tokens
        """The most tokens that a copy of a slot may hold to be cut anywhere: of a sliding window only the last one is copied."""
        if model.sliding_tokens or model.is_recurrent:
            self.max_cut_tokens = 0 if model.is_recurrent else model.sliding_tokens

    def close(self) -> None:
        """Free the cells. Twice is nothing."""
        if self._pointer:
            lib.llama_free(self._pointer)
            self._pointer = None

    def decode(self, batch: Batch) -> bool:
        """Compute a batch; the interpreter's lock is free meanwhile.

        Returns: False when it was aborted: the cells of its slots are then unknown from its first position on; `keep`
            what was before.

        Raises:
            EngineFailed: llama.cpp could not compute it.
        """
        assert batch.n_tokens <= self._n_batch  # llama.cpp would end the process
        code: int = lib.llama_decode(self._pointer, batch.struct)
        if code not in (DECODED, ABORTED):
            raise EngineFailed(f"llama_decode returned {code}: {last_log_lines()}")
        return code == DECODED

    def abort(self, *, on: bool) -> None:
        """Let a running `decode`, and any that follows, stop at its next node; may be called from any thread."""
        self._stop_flag[0] = b"\1" if on else b"\0"

    def logits(self, row: int) -> NDArray[np.float32]:
        """What the model thinks after the token in `row` of the last batch: (n_vocab,), natural logits.

        A view of llama.cpp's own memory, free to be written to, valid until the next `decode`.
        """
        return _view(lib.llama_get_logits_ith(self._pointer, row), self._n_vocab)

    def embeddings(self, n_rows: int) -> NDArray[np.float32]:
        """The last hidden states of the last batch: (n_rows, n_embd), one a token; a view like `logits`."""
        flat = _view(lib.llama_get_embeddings(self._pointer), n_rows * self._n_embd)
        return flat.reshape(n_rows, self._n_embd)

    def keep(self, slot: int, n_tokens: int) -> bool:
        """Drop the cells of a slot from position `n_tokens` on.

        Returns: False when the model's memory cannot be cut there (recurrent models, and sliding windows whose cells are not
            all there); the slot is then empty.
        """
        if (
            n_tokens > 0
            and self._has_window(slot, n_tokens)
            and lib.llama_memory_seq_rm(self._memory, slot, n_tokens, -1)
        ):
            return True
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return n_tokens == 0

    def _has_window(self, slot: int, n_tokens: int) -> bool:
        """Whether a slot has the cells that the token at `n_tokens` looks back at; a loaded state lacks those before its last window."""
        if not self._sliding_tokens or n_tokens >= self.n_cells(slot):
            return True
        first: int = lib.llama_memory_seq_pos_min(self._memory, slot)
        return first <= max(0, n_tokens + 1 - self._sliding_tokens)

    def n_cells(self, slot: int) -> int:
        """Positions that a slot holds."""
        last: int = lib.llama_memory_seq_pos_max(self._memory, slot)
        return last + 1

    def state_size_bytes(self, slot: int) -> int:
        """Bytes that `save` would write."""
        size: int = lib.llama_state_seq_get_size(self._pointer, slot)
        return size

    def save(self, slot: int, out: NDArray[np.uint8]) -> int:
        """Write the state of a slot into `out`. Returns: bytes written; 0 if `out` is too small.

        Cost: 5 us a token into memory that was touched before (2 us with flash attention), ten times that into fresh memory.
        """
        n_bytes: int = lib.llama_state_seq_get_data(
            self._pointer, _as(out, ctypes.c_uint8), out.nbytes, slot
        )
        return n_bytes

    def load(self, slot: int, state: NDArray[np.uint8]) -> bool:
        """Replace the cells of a slot by a saved state, of this or another slot. Cost: 6 us a token."""
        n_bytes: int = lib.llama_state_seq_set_data(
            self._pointer, _as(state, ctypes.c_uint8), state.nbytes, slot
        )
        return n_bytes > 0


def is_cpu_only() -> bool:
    """Whether this build of llama.cpp computes in main memory."""
    return not lib.llama_supports_gpu_offload()


def last_log_lines() -> str:
    """The last warnings and errors of llama.cpp in one line, for error messages."""
    return "; ".join(list(_backend())[-N_QUOTED_LINES:]) or "it gave no reason"


@functools.cache
def _backend() -> deque[str]:
    """Initialise llama.cpp once for the process; the bounded buffer that its log goes to instead of stderr."""
    lines: deque[str] = deque(maxlen=N_LOG_LINES)

    def take(level: int, text: bytes, _user_data: object) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (LOG_WARNING, LOG_ERROR) and line:
            lines.append(line[:200])

    callback = lib.llama_log_callback(take)
    _KEPT_ALIVE.append(callback)
    lib.llama_log_set(callback, None)
    lib.llama_backend_init()
    return lines


_KEPT_ALIVE: list[object] = []
"""llama.cpp holds a pointer to the log callback until the process ends, so something must hold the callback."""


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ModelMissing(
            f"cannot read the model file {path}: {error.strerror}", hint="run `aios pull`"
        ) from error
    if magic != GGUF_MAGIC:
        raise ModelMissing(f"{path} is not a GGUF file", hint="run `aios pull`, or name a GGUF")


@functools.cache
def _native(name: str) -> Any:  # noqa: ANN401 - a ctypes function
    return getattr(ctypes.CDLL(None), name)


def _as(array: NDArray[Any], kind: Any) -> Any:  # noqa: ANN401 - ctypes types and pointers
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


def _view(pointer: Any, n: int) -> NDArray[np.float32]:  # noqa: ANN401 - a ctypes pointer
    if not pointer:
        raise EngineFailed("llama.cpp has no output for this row")
    address = ctypes.addressof(pointer.contents)
    view: NDArray[np.float32] = np.frombuffer(
        memoryview((ctypes.c_float * n).from_address(address)), np.float32
    )
    return view
