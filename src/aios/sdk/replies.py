"""What model calls give back to a program: the answer, what it cost, and its parsed form."""

from typing import Generic, TypeVar, cast

from msgspec import Struct

from aios.abi.calls import ChatAnswer, CompleteAnswer
from aios.abi.gate import Result
from aios.abi.types import Finish, Message, TokenLogprob, ToolCall, Usage
from aios.errors import EngineFailed, InvalidCall
from aios.sdk.schemas import parse_as

T_co = TypeVar("T_co", covariant=True)
N_QUOTED_CHARS = 200


class ChatReply(Struct, Generic[T_co], frozen=True, kw_only=True):
    """One assistant message and what it took.

    `waited_s` was spent in queues, `ran_s` with a turn on the engine; `n_preemptions` counts the turns it lost.
    """

    message: Message
    finish: Finish
    usage: Usage
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()
    waited_s: float = 0.0
    ran_s: float = 0.0
    n_preemptions: int = 0
    schema: object = None
    """The type or JSON Schema that was asked for."""

    @property
    def text(self) -> str:
        """The text of the message."""
        return self.message.text()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model wants to have called."""
        return self.message.tool_calls

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed again."""
        return self.usage.cached_tokens

    @property
    def parsed(self) -> T_co:
        """The text as a value of the `schema` that was asked for.

        Raises:
            EngineFailed: The text was cut at `max_tokens`, or is not of the schema.
            InvalidCall: No schema was asked for.
        """
        if self.schema is None:
            raise InvalidCall("no schema was asked for", hint="pass schema=... to chat")
        try:
            return cast("T_co", parse_as(self.text, self.schema))
        except (ValueError, RecursionError) as error:
            cut = " (cut at max_tokens)" if self.finish is Finish.LENGTH else ""
            raise EngineFailed(
                f"the reply{cut} is not of the schema: {error}: {self.text[:N_QUOTED_CHARS]!r}",
                hint="allow more max_tokens, bound strings and lists in the schema, or ask again",
            ) from error


class CompleteReply(Struct, frozen=True, kw_only=True):
    """The text that follows a prompt, and what it took; the fields are those of `ChatReply`."""

    text: str
    finish: Finish
    usage: Usage
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()
    waited_s: float = 0.0
    ran_s: float = 0.0
    n_preemptions: int = 0

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed again."""
        return self.usage.cached_tokens


def chat_reply(result: Result[ChatAnswer], schema: object = None) -> ChatReply[T_co]:
    """The reply in the end of a `Chat` call."""
    answer = result.value
    return ChatReply(
        message=answer.message,
        finish=answer.finish,
        usage=answer.usage,
        model=answer.model,
        logprobs=answer.logprobs,
        waited_s=result.waited_s,
        ran_s=result.ran_s,
        n_preemptions=result.n_preemptions,
        schema=schema,
    )


def complete_reply(result: Result[CompleteAnswer]) -> CompleteReply:
    """The reply in the end of a `Complete` call."""
    answer = result.value
    return CompleteReply(
        text=answer.text,
        finish=answer.finish,
        usage=answer.usage,
        model=answer.model,
        logprobs=answer.logprobs,
        waited_s=result.waited_s,
        ran_s=result.ran_s,
        n_preemptions=result.n_preemptions,
    )
