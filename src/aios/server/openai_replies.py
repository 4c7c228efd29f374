"""From the answer of a system call to what OpenAI's clients expect: whole replies and the events of a stream."""

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from aios.abi.calls import ChatAnswer, CompleteAnswer, Embeddings
from aios.abi.gate import Progress, Result, Token
from aios.abi.types import EngineInfo, Finish, TokenLogprob, ToolCall, Usage
from aios.errors import AiosError
from aios.server.faults import error_json
from aios.server.openai_types import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    CompletionUsage,
    Delta,
    EmbeddingReply,
    EmbeddingRow,
    EmbeddingUsage,
    FunctionCall,
    FunctionToolCall,
    ModelCard,
    PromptDetails,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    TokenLogprobRow,
    ToolCallDelta,
    TopLogprob,
)
from aios.server.stream import EVENTS, event

LEAST_LOGPROB = -9999.0
"""OpenAI's stand-in for minus infinity, which JSON cannot say."""
DONE = b"data: [DONE]\n\n"


class Tag(Struct, frozen=True):
    """What every part of one reply carries."""

    id: str
    created: int
    model: str = ""


def chat_completion(answer: ChatAnswer, tag: Tag) -> ChatCompletion:
    """The whole reply of a chat."""
    calls = [
        FunctionToolCall(call.id, FunctionCall(call.name, call.arguments))
        for call in answer.message.tool_calls
    ]
    text = answer.message.text()
    message = AssistantMessage("assistant", text if text or not calls else None, calls or UNSET)
    choice = Choice(0, message, answer.finish.value, chat_logprobs(answer.logprobs))
    usage = usage_of(answer.usage)
    return ChatCompletion(tag.id, "chat.completion", tag.created, answer.model, [choice], usage)


def text_completion(answer: CompleteAnswer, tag: Tag) -> TextCompletion:
    """The whole reply of a text completion."""
    choice = TextChoice(0, answer.text, answer.finish.value, text_logprobs(answer.logprobs))
    usage = usage_of(answer.usage)
    return TextCompletion(tag.id, "text_completion", tag.created, answer.model, [choice], usage)


def embedding_reply(
    answer: Embeddings, encoding: Literal["float", "base64"] | None
) -> EmbeddingReply:
    """The reply with the vectors."""
    rows = [
        EmbeddingRow("embedding", at, _base64(vector) if encoding == "base64" else vector)
        for at, vector in enumerate(answer.vectors)
    ]
    n_tokens = answer.usage.prompt_tokens
    return EmbeddingReply("list", rows, answer.model, EmbeddingUsage(n_tokens, n_tokens))


def model_cards(engines: Iterable[EngineInfo], created: int) -> list[ModelCard]:
    """The models that are served and their aliases, each once; an engine that has not told its model goes by its own name."""
    windows: dict[str, int] = {}
    for engine in engines:
        for name in (engine.model or engine.name, *engine.aliases):
            windows.setdefault(name, engine.window_tokens)
    return [ModelCard(name, "model", created, "aios", window) for name, window in windows.items()]


def usage_of(usage: Usage) -> CompletionUsage:
    """Tokens as OpenAI counts them."""
    return CompletionUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        PromptDetails(usage.cached_tokens),
    )


def chat_logprobs(rows: tuple[TokenLogprob, ...]) -> ChoiceLogprobs | None:
    """Log-probabilities of a chat; None without any."""
    return ChoiceLogprobs([_row(row) for row in rows]) if rows else None


def text_logprobs(rows: tuple[TokenLogprob, ...], offset: int = 0) -> TextLogprobs | None:
    """Log-probabilities of a text that begins at `offset`; None without any."""
    if not rows:
        return None
    offsets = []
    for row in rows:
        offsets.append(offset)
        offset += len(row.token)
    return TextLogprobs(
        [row.token for row in rows],
        [_finite(row.logprob) for row in rows],
        [{other.token: _finite(other.logprob) for other in row.top} for row in rows],
        offsets,
    )


@dataclass(eq=False)
class ChatEvents:
    """The events of a streamed chat: the role, pieces of text, tool calls, the end, perhaps usage, `[DONE]`."""

    tag: Tag
    include_usage: bool
    media_type: str = field(default=EVENTS, init=False)
    _n_calls: int = 0
    _is_begun: bool = False

    def progress(self, frame: Progress) -> bytes:
        if not isinstance(frame, Token):
            return b""
        role = self._role()
        rows = chat_logprobs(frame.logprobs)
        if not (frame.text or frame.tool_calls or rows):
            return role
        calls = [self._call(call) for call in frame.tool_calls]
        delta = Delta(content=frame.text or UNSET, tool_calls=calls or UNSET)
        return role + self._chunk(delta, rows)

    def result(self, result: Result[ChatAnswer]) -> bytes:
        answer = result.value
        end = self._role() + self._chunk(Delta(), None, answer.finish)
        if self.include_usage:
            end += self._event([], usage_of(answer.usage))
        return end + DONE

    def fault(self, error: AiosError) -> bytes:
        return event(error_json(error))

    def _role(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        return self._chunk(Delta("assistant", ""), None)

    def _call(self, call: ToolCall) -> ToolCallDelta:
        self._n_calls += 1
        function = FunctionCall(call.name, call.arguments)
        return ToolCallDelta(self._n_calls - 1, call.id, "function", function)

    def _chunk(
        self, delta: Delta, rows: ChoiceLogprobs | None, finish: Finish | None = None
    ) -> bytes:
        reason = finish.value if finish else None
        return self._event(
            [ChunkChoice(0, delta, reason, rows)], None if self.include_usage else UNSET
        )

    def _event(
        self, choices: list[ChunkChoice], usage: CompletionUsage | UnsetType | None
    ) -> bytes:
        tag = self.tag
        chunk = ChatCompletionChunk(
            tag.id, "chat.completion.chunk", tag.created, tag.model, choices, usage
        )
        return event(msgspec.json.encode(chunk))


@dataclass(eq=False)
class TextEvents:
    """The events of a streamed text completion."""

    tag: Tag
    include_usage: bool
    media_type: str = field(default=EVENTS, init=False)
    _n_chars: int = 0

    def progress(self, frame: Progress) -> bytes:
        if not isinstance(frame, Token) or not (frame.text or frame.logprobs):
            return b""
        rows = text_logprobs(frame.logprobs, self._n_chars)
        self._n_chars += len(frame.text)
        return self._event([TextChoice(0, frame.text, None, rows)], None)

    def result(self, result: Result[CompleteAnswer]) -> bytes:
        answer = result.value
        end = self._event([TextChoice(0, "", answer.finish.value, None)], None)
        if self.include_usage:
            end += self._event([], usage_of(answer.usage))
        return end + DONE

    def fault(self, error: AiosError) -> bytes:
        return event(error_json(error))

    def _event(self, choices: list[TextChoice], usage: CompletionUsage | None) -> bytes:
        tag = self.tag
        shown = usage if self.include_usage else UNSET
        chunk = TextCompletion(tag.id, "text_completion", tag.created, tag.model, choices, shown)
        return event(msgspec.json.encode(chunk))


def _row(row: TokenLogprob) -> TokenLogprobRow:
    top = [TopLogprob(o.token, _finite(o.logprob), list(o.token_bytes)) for o in row.top]
    return TokenLogprobRow(row.token, _finite(row.logprob), list(row.token_bytes), top)


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def _base64(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
