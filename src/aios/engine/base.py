"""The engine contract: a conversation in, tokens out; knows no agent, no process, no queue.

An engine has `n_slots` slots; a `Sequence` is a generation that occupies one from `open` to `close`. Whoever opens
sequences keeps to that number (the kernel's scheduler does); one more is refused, never queued. Every method may be
called from the event loop only; an engine that needs a thread hides it. `tests/engine/contract.py` holds the suite
that every engine passes.
"""

from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from aios.abi.types import (
    Constraint,
    Finish,
    Message,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolChoice,
    ToolSpec,
    Usage,
)

if TYPE_CHECKING:  # numpy comes with the `local` extra; the contract must not need it
    from collections.abc import Callable
    from collections.abc import Sequence as Seq

    import numpy as np
    from numpy.typing import NDArray


MESSAGE_CHARS = 16
"""What a template's work for a message, or for a tool call in one, is worth in characters, however short it is."""
EMBED_BATCH = 256
"""Texts in one request for vectors: endpoints refuse more than some number, and OpenAI's is 2048."""


class Ability(Enum):
    """What an engine may or may not be able to do."""

    CHAT = "chat"
    COMPLETE = "complete"
    EMBED = "embed"
    TOKENIZE = "tokenize"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LOGPROBS = "logprobs"
    LOGIT_BIAS = "logit_bias"
    IMAGES = "images"
    SUSPEND = "suspend"  # a suspended sequence goes on exactly where it was
    SNAPSHOT = "snapshot"  # and can be made into bytes that outlive the process


class Capabilities(Struct, frozen=True):
    """What an engine offers.

    `window_tokens` is what prompt and output of one sequence may take together; 0 when nobody told us.
    `fingerprint` names model, quantisation and whatever else suspended state depends on. `is_resumed_from_text`: a suspended
    sequence goes on from the text it has brought; where that cannot be (`abilities.can_go_on`) it is generated again as a whole.
    """

    model: str
    window_tokens: int
    n_slots: int
    abilities: frozenset[Ability]
    fingerprint: str = ""
    note: str = ""
    is_resumed_from_text: bool = False


class ChatPrompt(Struct, frozen=True):
    """A conversation, to be put through the model's chat template."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ToolChoice()

    def n_chars(self) -> int:
        """How much a template is given: the characters of all texts, and `MESSAGE_CHARS` for each message and tool call."""
        n_chars = len(msgspec.json.encode(self.tools)) if self.tools else 0
        for said in self.messages:
            n_chars += len(said.text()) + len(said.name) + len(said.tool_call_id) + MESSAGE_CHARS
            for call in said.tool_calls:
                n_chars += len(call.id) + len(call.name) + len(call.arguments) + MESSAGE_CHARS
        return n_chars


class TextPrompt(Struct, frozen=True):
    """A text to go on with; no template."""

    text: str


class Begun(Struct, frozen=True):
    """What a generation had brought when it was cut off: `Delta.tokens` and `Delta.text` so far, and which engine had it."""

    fingerprint: str
    tokens: tuple[int, ...]
    text: str


class Job(Struct, frozen=True):
    """One generation.

    `max_tokens` None may fill the window. `top_logprobs` None asks for no log-probabilities, n for the chosen token's and
    the n likeliest alternatives'. `sampling.seed` is always set by the caller (the kernel draws one if the agent did not).
    """

    prompt: ChatPrompt | TextPrompt
    sampling: Sampling = Sampling(seed=0)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    is_urgent: bool = False
    """A short call that others should not hold up: an engine that has a choice computes it first."""
    begun: Begun | None = None
    """What was cut off of the same job, by this engine (`Ability.SNAPSHOT`); the sequence brings only what comes behind it."""


class Delta(Struct, frozen=True):
    """What a sequence brought since the last `read`.

    `text` is valid Unicode, never part of a stop string and never half a character. `tool_calls` are whole. `finish` and
    `usage` are set on the last delta, and only there. `n_tokens` counts sampled tokens, also those whose text is held back.
    `tokens` has a number for each of them, where the engine can go on from those (`Job.begun`): ids, if it has ids.
    `pages` on the last delta names the pages of prompt and output in the engine's page store, if it has one.
    """

    text: str = ""
    n_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    pages: tuple[bytes, ...] = ()
    tokens: tuple[int, ...] = ()


class Suspended(Struct, frozen=True):
    """A generation taken out of its slot, to be put back by `open(job, suspended)`, or given up by `Engine.drop`.

    Until one of the two its KV rows are kept. It may be opened again after that; then they may have to be recomputed.

    `tokens` are the prompt's and the output's ids so far, where the engine has ids. `emitted` is what the sequence has
    handed out; `state` is the engine's own (how far it is, where its KV rows are kept) and opaque to the caller.
    """

    fingerprint: str
    n_generated: int
    tokens: tuple[int, ...] = ()
    emitted: str = ""
    state: object = None


class Sequence(Protocol):
    """A generation that occupies a slot."""

    @property
    def usage(self) -> Usage:
        """Tokens so far, also when it is closed before its end; of the prompt those that are computed or were cached.

        Zeros stand for what an endpoint has not told.
        """
        ...

    async def read(self) -> Delta:
        """Wait for the next piece. A reader that is slow gets larger pieces; the engine never waits for it.

        Cancelling it loses nothing: the next `read` goes on where the one before it ended.

        Raises:
            EngineFailed: The engine broke in the middle.
            EngineUnavailable: The engine was closed.
            InvalidCall: The output cannot go on under its constraint; the engine is well.
        """
        ...

    async def suspend(self) -> Suspended:
        """Take the generation out of its slot, which is then free, and hand back all that is needed to go on.

        What was generated and not yet read is kept and comes with the first `read` after the next `open`.
        """
        ...

    async def close(self) -> None:
        """Free the slot; a running step is aborted if only this sequence is in it. Closing twice is nothing."""
        ...


class PageStore(Protocol):
    """Where an engine keeps the KV rows of prefixes, page by page; it may outlive the engine. Safe in any thread.

    Keys name pages: two sequences share a key exactly when they share all tokens up to the end of that page. The last page
    of a chain may be filled in part, a *tail*: unless somebody pins it, it is kept in memory only, and goes early.
    """

    def keys(self, tokens: "NDArray[np.int32]", *, tail: bool = False) -> list[bytes]:
        """The names of all full pages of a sequence, in order, and of its tail if asked for and if there is one."""
        ...

    def n_known(self, keys: "Seq[bytes]") -> int:
        """How many pages from the start are known, in memory or on disk; changes nothing."""
        ...

    def longest(self, tokens: "NDArray[np.int32]") -> tuple[list[bytes], int]:
        """The names of the longest beginning that is known, which may end in a tail, and its tokens; changes nothing."""
        ...

    def n_resident(self, keys: "Seq[bytes]") -> int:
        """How many pages from the start are in memory: to acquire these waits for no disk."""
        ...

    def acquire(self, keys: "Seq[bytes]") -> "list[NDArray[np.uint8]]":
        """The rows of the longest run of known pages from the start; they stay where they are until `release`.

        What is on disk is read, at 0.8 ms a page: do not ask for that where others wait.
        """
        ...

    def release(self, keys: "Seq[bytes]") -> None:
        """Give back what `acquire` returned."""
        ...

    def add(
        self, key: bytes, parent: bytes | None, write: "Callable[[NDArray[np.uint8]], None]"
    ) -> bool:
        """Store a page unless it is known; `write` fills it. Returns: whether it is there now."""
        ...

    def pin(self, name: str, keys: "Seq[bytes]", *, synced: bool = False) -> int:
        """Keep pages, in memory or on disk, until `unpin(name)`; what the name pinned before is let go.

        A page may be pinned before it is stored. Several names may pin a page. With `synced` the pages and the pin are
        written and synced: both survive the kernel, and no budget removes them; that waits for the disk.

        Returns: How many pages from the start are there; with `synced`, how many survive.
        """
        ...

    def unpin(self, name: str) -> None:
        """Let go what a name pins, also what an earlier kernel pinned by it; unknown is nothing."""
        ...

    def flush(self, keys: "Seq[bytes]") -> int:
        """Write pages to disk and sync them. Returns: how many from the start survive a crash now."""
        ...


class OpenPages(Protocol):
    """Opens the page store of a model, once its engine knows what a page is."""

    def __call__(self, *, fingerprint: str, page_tokens: int, page_bytes: int) -> PageStore:
        """The store for pages of that many tokens and bytes, of the model with that fingerprint."""
        ...


class EngineStatistics(Struct, frozen=True):
    """Counters since the engine was opened; all only grow but `n_running`."""

    n_running: int = 0
    n_sequences: int = 0
    n_prompt_tokens: int = 0
    n_prompt_tokens_computed: int = 0
    n_generated_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    extra: dict[str, float] = msgspec.field(default_factory=dict)


class Engine(Protocol):
    """A model that can be run."""

    @property
    def capabilities(self) -> Capabilities:
        """What it offers; valid after `start`."""
        ...

    async def start(self) -> None:
        """Load or connect; on return the engine is ready.

        Raises:
            ModelMissing: The model's file is absent, truncated or wrong.
            EngineUnavailable: It cannot be reached, or there is no room for it.
        """
        ...

    async def aclose(self) -> None:
        """End every sequence (their readers get `EngineUnavailable`) and free everything. Twice is nothing."""
        ...

    async def open(self, job: Job, suspended: Suspended | None = None) -> Sequence:
        """Put a generation into a free slot; the caller owns it until `close` or `suspend`.

        Raises:
            ContextWindowExceeded: Prompt and one token of output do not fit.
            InvalidCall: A constraint or pattern cannot be compiled, or a message makes no sense to the template.
            ResourceExhausted: No slot is free.
            SnapshotIncompatible: Another model, quantisation or KV type suspended it.
            Unsupported: The job asks for an ability that the engine lacks.
        """
        ...

    def drop(self, suspended: Suspended) -> None:
        """Give up a suspended generation; what is kept for it is let go. After that, or after an `open`, it is nothing."""
        ...

    async def dump(self, suspended: Suspended) -> bytes:
        """A suspended generation as bytes, for `load` in this or a later process.

        What the engine keeps for it is on disk when this returns, as far as the disk has room, and stays there until
        someone opens or drops it.

        Raises:
            SnapshotIncompatible: Another engine suspended it.
            Unsupported: The engine cannot (`Ability.SNAPSHOT`).
        """
        ...

    def load(self, data: bytes) -> Suspended:
        """What `dump` was given.

        Raises:
            SnapshotIncompatible: Another model, quantisation or KV type wrote it, another version, or it is damaged.
            Unsupported: The engine cannot (`Ability.SNAPSHOT`).
        """
        ...

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        """Vectors of length 1, one a text.

        Raises:
            ContextWindowExceeded: A text is longer than the window.
            Unsupported: The engine has no embeddings.
        """
        ...

    async def tokenize(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens.

        Raises:
            Unsupported: The tokenizer is not here.
        """
        ...

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        """Tokens of a prompt as the model would see it.

        Raises:
            Unsupported: The tokenizer is not here.
        """
        ...

    def statistics(self) -> EngineStatistics:
        """Counters for `info`, `top` and the benches."""
        ...
