"""From the events of a streamed completion to deltas: text, whole tool calls, log-probabilities, finish, usage. Pure."""

from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from aios.abi.types import Alternative, Finish, TokenLogprob, ToolCall, Usage
from aios.engine.base import Delta
from aios.engine.remote.problems import Problem, problem_in_stream
from aios.errors import EngineFailed
from aios.readers import Reader

MAX_TOOL_CALLS = 256
MAX_COUNT = 1 << 31
"""No count of tokens is taken for more than this, whatever an endpoint says: sums of them must fit 64 bits everywhere."""
DONE = "[DONE]"

_FINISHES = {
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.CONTENT_FILTER,
}


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, object] | None = None


class _CallPart(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _DeltaPart(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_CallPart] | None = None


class _Candidate(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Row(_Candidate):
    top_logprobs: list[_Candidate] | None = None


class _Logprobs(Struct):
    """Chats have `content`; texts have the three parallel lists."""

    content: list[_Row] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _DeltaPart | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Timings(Struct):
    cache_n: float = 0
    prompt_n: float = 0
    predicted_n: float = 0


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: object = None


_chunk = Reader(msgspec.json.Decoder, _Chunk)


@dataclass
class _CallInProgress:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass
class ChunkReader:
    """Puts one generation together.

    Attributes:
        n_tokens: Tokens that have come. Few endpoints say how many a chunk brings: else one is counted for each chunk that
            brings any, and the last delta makes up for what the endpoint's own count says there were more.
        is_finished: The endpoint has said why it ended; only its usage may still come.
        is_done: Nothing more comes.
        problem: The endpoint said in the stream that it failed.
    """

    n_before: int = 0
    """Tokens of this generation that came before it was suspended."""
    n_prompt_before: int | None = None
    """Tokens of its prompt, if that was told then; else what came before is taken from what is told now."""
    echo: str = ""
    """What the endpoint goes on from, several tokens, and may say again before its first one."""
    n_tokens: int = field(default=0, init=False)
    is_done: bool = field(default=False, init=False)
    problem: Problem | None = field(default=None, init=False)
    _finish: str | None = field(default=None, init=False)
    _usage: _Usage | None = field(default=None, init=False)
    _text: list[str] = field(default_factory=list, init=False)
    _rows: list[TokenLogprob] = field(default_factory=list, init=False)
    _calls: dict[int, _CallInProgress] = field(default_factory=dict, init=False)
    _n_taken: int = field(default=0, init=False)

    @property
    def n_prompt(self) -> int | None:
        """Tokens of the prompt, without those that came before; None while nobody told."""
        if (
            self.n_prompt_before is not None
            or self._usage is None
            or self._usage.prompt_tokens is None
        ):
            return self.n_prompt_before
        return max(0, count_of(self._usage.prompt_tokens) - self.n_before)

    @property
    def is_finished(self) -> bool:
        return self._finish is not None

    def feed(self, event: str) -> None:
        """Take in one event.

        Raises:
            EngineFailed: It is no chunk of a completion, or there are too many tool calls.
        """
        if event.strip() == DONE:
            self.is_done = True
            return
        try:
            chunk = _chunk.decode(event)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise EngineFailed(f"the endpoint sent a malformed chunk: {error}") from error
        if chunk.error is not None:
            self.problem = problem_in_stream(chunk.error)
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._add(choice)
        usage = chunk.usage or (self._usage_so_far(chunk.timings) if chunk.timings else None)
        if usage is not None:
            self._usage = usage
            if usage.completion_tokens is not None and not self.is_finished:
                self.n_tokens = max(self._n_taken, count_of(usage.completion_tokens))

    def take(self) -> Delta | None:
        """What has come since the last call; None if there is nothing to tell."""
        if not self.is_done and self.n_tokens == self._n_taken and not self._text:
            return None
        text, rows = "".join(self._text), tuple(self._rows)
        self._text.clear()
        self._rows.clear()
        n_new = self.n_tokens - self._n_taken
        self._n_taken = self.n_tokens
        if not self.is_done:
            return Delta(text, n_new, rows)
        usage = self._final_usage()
        n_missed = max(0, usage.completion_tokens - self.n_before - self.n_tokens)
        calls = self._whole_calls()
        finish = _FINISHES.get(self._finish or "stop", Finish.STOP)
        if calls and finish is Finish.STOP:
            finish = Finish.TOOL_CALLS
        return Delta(text, n_new + n_missed, rows, calls, finish, usage)

    def _usage_so_far(self, told: _Timings) -> _Usage:
        """What llama-server tells with every chunk, until it tells the usage; its first chunk counts no token."""
        n_cached, n_computed = count_of(told.cache_n), count_of(told.prompt_n)
        n_tokens = max(self.n_tokens, count_of(told.predicted_n))
        return _Usage(n_cached + n_computed, n_tokens, _PromptDetails(n_cached))

    def _add(self, choice: _Choice) -> None:
        n_rows = len(self._rows)
        if choice.logprobs is not None:
            self._rows += _rows(choice.logprobs)
        part = choice.delta or _DeltaPart()
        text = (part.content or "") + (part.refusal or "") + (choice.text or "")
        if text and self.echo:  # a token alone is shorter: nothing else begins with all of it
            text, self.echo = text.removeprefix(self.echo), ""
        if text:
            self._text.append(text)
        for call in part.tool_calls or ():
            self._add_call(call)
        brings = text or part.tool_calls or part.reasoning_content or part.reasoning
        self.n_tokens += max(len(self._rows) - n_rows, 1 if brings else 0)
        self._finish = choice.finish_reason or self._finish

    def _add_call(self, part: _CallPart) -> None:
        index = part.index
        if index is None:  # some servers number no calls: an id or a name begins the next one
            begins = part.id or (part.function is not None and part.function.name)
            index = len(self._calls) - (0 if begins or not self._calls else 1)
        if index not in self._calls and len(self._calls) >= MAX_TOOL_CALLS:
            raise EngineFailed(f"the endpoint sent more than {MAX_TOOL_CALLS} tool calls")
        call = self._calls.setdefault(index, _CallInProgress())
        call.id = call.id or part.id or ""
        if part.function is not None:
            call.name = call.name or part.function.name or ""
            arguments = part.function.arguments
            if isinstance(arguments, dict):
                arguments = msgspec.json.encode(arguments).decode()
            call.arguments.append(arguments or "")

    def _whole_calls(self) -> tuple[ToolCall, ...]:
        """The calls that are whole: a generation that was cut off leaves its last one unfinished."""
        calls = [self._calls[index] for index in sorted(self._calls)]
        if self._finish in {"length", "max_tokens", "content_filter"}:
            calls = [call for call in calls if _is_json("".join(call.arguments))]
        return tuple(
            ToolCall(call.id or f"call_{i}", call.name, "".join(call.arguments) or "{}")
            for i, call in enumerate(calls)
            if call.name
        )

    def _final_usage(self) -> Usage:
        told = self._usage or _Usage()
        n_told = told.completion_tokens
        n_completion = self.n_tokens if n_told is None else count_of(n_told)
        details = told.prompt_tokens_details or _PromptDetails()
        n_prompt = self.n_prompt or 0
        return Usage(
            prompt_tokens=n_prompt,
            cached_tokens=min(n_prompt, max(0, details.cached_tokens or 0)),
            completion_tokens=self.n_before + n_completion,
        )


def count_of(told: float) -> int:
    """A number of tokens that an endpoint tells, as one that can be."""
    return int(min(max(0, told), MAX_COUNT))


def _rows(told: _Logprobs) -> list[TokenLogprob]:
    if told.content is not None:
        return [
            TokenLogprob(
                row.token,
                row.logprob,
                _token_bytes(row),
                tuple(
                    Alternative(c.token, c.logprob, _token_bytes(c)) for c in row.top_logprobs or ()
                ),
            )
            for row in told.content
        ]
    tokens, values = told.tokens or [], told.token_logprobs or []
    tops = told.top_logprobs or [None] * len(tokens)
    return [
        TokenLogprob(
            token,
            value or 0.0,
            token.encode("utf-8", "replace"),
            tuple(
                Alternative(name, other, name.encode("utf-8", "replace"))
                for name, other in (top or {}).items()
            ),
        )
        for token, value, top in zip(tokens, values, tops, strict=False)
    ]


def _token_bytes(row: _Candidate) -> bytes:
    if row.bytes is not None and all(0 <= byte < 256 for byte in row.bytes):
        return bytes(row.bytes)
    return row.token.encode("utf-8", "replace")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
