"""One generation: from the logits of its next token to text, tool calls and an end.

It belongs to the engine's thread from `open` until it has ended or was suspended. A suspended generation is its tokens and a
few numbers: the sampler keeps no state, and grammar, text and tool calls are brought back by giving them the output again.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

import msgspec
import numpy as np
from msgspec import Struct

from aios.abi.types import Alternative, Finish, TokenLogprob, ToolCall, Usage
from aios.engine.base import Delta
from aios.engine.llama.grammar import Matcher
from aios.engine.llama.keeping import NOTHING, Kept
from aios.engine.llama.outbox import Reader
from aios.engine.llama.sampling import Logits, Sampler, Tokens, find_top, log_probabilities
from aios.engine.llama.template import ToolMode
from aios.engine.llama.toolcalls import ToolParser
from aios.engine.text import TextAssembler
from aios.errors import AiosError, EngineFailed, InvalidCall, KernelBug

log = logging.getLogger(__name__)


class Speech(Struct, frozen=True):
    """What the tokens of a model mean.

    `piece` gives the bytes that a token stands for, but for those in `shown`; `eog_tokens` end a generation.
    """

    piece: Callable[[int], bytes]
    eog_tokens: frozenset[int]
    shown: Mapping[int, bytes] = msgspec.field(default_factory=dict)

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to the text."""
        return self.shown.get(token) or self.piece(token)


@dataclass
class Carried:
    """What a generation carries beside its tokens."""

    assembler: TextAssembler
    tool_mode: ToolMode = ToolMode.NONE
    parser: ToolParser | None = None
    n_reached: int = 0
    """Tokens that were in the cells of some slot already; computing them once more is no new work."""
    n_prompt_computed: int = 0
    n_tool_calls: int = 0


@dataclass(eq=False, kw_only=True)
class Generation:
    """Tokens that grow.

    Args:
        start: The ids of the prompt, and of the output too when it was suspended.
        n_prompt: How many of them are the prompt.
        n_max: Tokens at which it ends: the window, or less if the job says so.
        sampler: Chooses the next token.
        speech: Turns tokens into bytes.
        carried: How far its text has come.
        reader: Hears of every token, in the event loop.
        matcher: The grammar, at the beginning of the output.
        kept: What is kept of its cells, if it was suspended.
        top_logprobs: As in `Job`.
    """

    start: Tokens
    n_prompt: int
    n_max: int
    sampler: Sampler
    speech: Speech
    carried: Carried
    reader: Reader
    matcher: Matcher | None = None
    kept: Kept = NOTHING
    top_logprobs: int | None = None
    is_urgent: bool = False
    is_closed: bool = False
    """Nobody wants it any more; set by the event loop, under the engine loop's lock."""
    n_tokens: int = field(default=0, init=False)
    computing: tuple[int, int] = field(default=(0, 0), init=False)
    """From where to where its last step goes, which may still run."""

    def __post_init__(self) -> None:
        assert 0 < self.n_prompt <= len(self.start) < self.n_max
        self.n_tokens = len(self.start)
        self._tokens = np.empty(self.n_max, np.int32)
        self._tokens[: self.n_tokens] = self.start

    @property
    def tokens(self) -> Tokens:
        """Prompt and output so far: a view."""
        return self._tokens[: self.n_tokens]

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        n_cached = self.n_prompt - self.carried.n_prompt_computed
        return Usage(self.n_prompt, n_cached, self.n_tokens - self.n_prompt)

    @property
    def usage_so_far(self) -> Usage:
        """The same while the prompt may not be computed to its end; a step that still runs counts."""
        reached, (start, end) = self.carried.n_reached, self.computing
        n_running = max(0, min(end, self.n_prompt) - max(start, reached))
        n_prompt = min(max(reached, end), self.n_prompt)
        n_cached = max(0, n_prompt - self.carried.n_prompt_computed - n_running)
        return Usage(n_prompt, n_cached, self.n_tokens - self.n_prompt)

    def replay(self) -> None:
        """Bring grammar, text and tool calls to the end of the output that it began with. Cost: 0.05 ms a token at most."""
        for token in self.tokens[self.n_prompt :].tolist():
            if self.matcher is not None:
                self.matcher.accept(token)
            self._parsed(self.carried.assembler.feed(self.speech.bytes_of(token)))

    def note_computed(self, start: int, end: int) -> int:
        """Take note that tokens `start` to `end` went through the model. Returns: how many of the prompt were new."""
        n_new = max(0, min(end, self.n_prompt) - max(start, self.carried.n_reached))
        self.carried.n_reached = max(self.carried.n_reached, end)
        self.carried.n_prompt_computed += n_new
        return n_new

    def try_advance(self, logits: Logits) -> Delta | AiosError:
        """`advance`, with whatever goes wrong as a value: one generation's trouble must not be the others'."""
        troubles: list[AiosError] = []
        with ExitStack() as stack:
            stack.push(partial(_note_trouble, troubles))
            return self.advance(logits)
        return troubles[0]

    def advance(self, logits: Logits) -> Delta:
        """Choose the next token and say what it brings; the last one brings `finish`. Writes to `logits`.

        Raises:
            EngineFailed: No token may come next.
            InvalidCall: None may under the constraint, or that became too complex. The engine is well.
        """
        raw = logits.copy() if self.top_logprobs is not None else None
        token = self._choose(logits)
        self._tokens[self.n_tokens] = token
        self.n_tokens += 1
        if token in self.speech.eog_tokens:
            return self._ended(Delta(n_tokens=1), Finish.STOP)
        text, calls = self._parsed(self.carried.assembler.feed(self.speech.bytes_of(token)))
        rows = () if raw is None else (self._logprob(raw, token),)
        delta = Delta(text, 1, rows, calls, tokens=(token,))
        if self.carried.assembler.stopped or (self.matcher is not None and self.matcher.is_done):
            return self._ended(delta, Finish.STOP)
        if self.n_tokens == self.n_max:
            return self._ended(delta, Finish.LENGTH)
        return delta

    def _choose(self, logits: Logits) -> int:
        try:
            if self.matcher is not None:
                self.matcher.apply_mask(logits)
            token = self.sampler.choose(logits, self.tokens)
        except ValueError as error:
            said = f"no token may follow after {self.n_tokens - self.n_prompt} of output"
            if self.matcher is not None:
                raise InvalidCall(said, hint="use a simpler schema or pattern") from error
            raise EngineFailed(said, hint="the model is damaged: fetch it again") from error
        is_end = token in self.speech.eog_tokens
        if self.matcher is not None and not is_end and not self.matcher.accept(token):
            raise InvalidCall(f"the constraint allowed token {token} and then refused it")
        return token

    def _parsed(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """Take tool calls out of new text."""
        if self.carried.parser is None:
            return text, ()
        text, calls = self.carried.parser.feed(text)
        self.carried.n_tool_calls += len(calls)
        return text, calls

    def _ended(self, delta: Delta, finish: Finish) -> Delta:
        """The last delta, with all that was held back."""
        text, calls = self._parsed(self.carried.assembler.flush())
        if self.carried.parser is not None:
            last_text, last_calls = self.carried.parser.flush()
            text, calls = text + last_text, calls + last_calls
            self.carried.n_tool_calls += len(last_calls)
        if finish is Finish.STOP and self.carried.n_tool_calls:
            finish = Finish.TOOL_CALLS
        return Delta(
            delta.text + text,
            delta.n_tokens,
            delta.logprobs,
            delta.tool_calls + calls,
            finish,
            self.usage,
        )

    def _logprob(self, logits: Logits, token: int) -> TokenLogprob:
        """The row of a token under the model's own distribution, before bias, penalties and constraint."""
        logprobs = log_probabilities(logits)
        top_ids, top = find_top(logprobs, self.top_logprobs or 0, float(logprobs.max()))
        piece = self.speech.bytes_of
        others = (
            Alternative(*_spelled(piece(int(other)), float(logprob)))
            for other, logprob in zip(top_ids, top, strict=True)
        )
        return TokenLogprob(*_spelled(piece(token), float(logprobs[token])), tuple(others))


def _note_trouble(
    troubles: list[AiosError],
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _traceback: TracebackType | None,
) -> bool:
    if error is not None and not isinstance(error, AiosError):
        log.error("a generation broke", exc_info=error)
        error = KernelBug(f"the generation broke: {type(error).__name__}: {error}")
    if error is not None:
        troubles.append(error)
    return True


def _spelled(piece: bytes, logprob: float) -> tuple[str, float, bytes]:
    return piece.decode("utf-8", "replace"), logprob, piece
