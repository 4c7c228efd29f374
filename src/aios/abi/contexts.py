"""The calls about contexts: conversations that the kernel keeps. What they do is `kernel/context/contexts.py`.

A chat goes on in one by naming it (`Chat.context`): then only the new messages are sent, and the answer is kept.
"""

from typing import Annotated, NewType

from msgspec import Meta

from aios.abi.call import Answer, Call, Done, ModelName
from aios.abi.types import Count, Message, Pid, ToolSpec

ContextId = NewType("ContextId", int)
"""A context: positive, unique for the life of a kernel, never given twice."""

NewMessages = Annotated[tuple[Message, ...], Meta(max_length=100_000)]
SomeMessages = Annotated[tuple[Message, ...], Meta(min_length=1, max_length=100_000)]
ContextTools = Annotated[tuple[ToolSpec, ...], Meta(max_length=1024)]


class ContextInfo(Answer, frozen=True):
    """A context without its messages.

    `unanswered` are the ids of tool calls whose results must come next. `n_tokens` is the length of its prompt with the
    last answer, as the engine counted it; 0 before the first. `writer` is the pid that writes in it now.
    """

    id: ContextId
    pid: Pid
    model: str
    n_messages: Count
    size_bytes: Count
    n_tokens: Count
    unanswered: tuple[str, ...] = ()
    writer: Pid | None = None


class ContextOpen(Call[ContextInfo], frozen=True, tag="context_open"):
    """Make a context, which belongs to the caller and ends with it.

    `messages` are its beginning, kept whatever leaves the window if `is_pinned`; `tools` and `model` are those of every
    chat in it that names no others.

    Raises:
        InvalidCall: The messages are no conversation.
        ResourceExhausted: The caller has `context.max_contexts` already.
        TooLarge: They are more than one context may hold.
    """

    messages: NewMessages = ()
    tools: ContextTools = ()
    model: ModelName = ""
    is_pinned: bool = False


class ContextAppend(Call[ContextInfo], frozen=True, tag="context_append"):
    """Add messages without asking a model; `is_pinned` keeps them whatever leaves the window.

    Raises:
        Conflict: Somebody writes in it now.
        InvalidCall: They do not follow on what is there: a result without its call, two results of one call, a call
            without its result, an assistant's message with nothing to answer. Nothing is added then.
        TooLarge: They are more than one context may hold.
    """

    context: ContextId
    messages: SomeMessages
    is_pinned: bool = False


class ContextFork(Call[ContextInfo], frozen=True, tag="context_fork"):
    """Make a second context with the same messages, which belongs to the caller; no model works and nothing is copied."""

    context: ContextId


class ContextClose(Call[Done], frozen=True, tag="context_close"):
    """Forget a context.

    Raises:
        Conflict: Somebody writes in it now.
    """

    context: ContextId


class ContextStat(Call[ContextInfo], frozen=True, tag="context_stat"):
    """Ask about one context."""

    context: ContextId


class ContextInfos(Answer, frozen=True):
    """Contexts by id."""

    contexts: tuple[ContextInfo, ...]


class ContextList(Call[ContextInfos], frozen=True, tag="context_list"):
    """List the contexts of the caller and its descendants; for the owner, all."""


class ContextMessages(Answer, frozen=True):
    """Messages of a context, in order; `pinned` are the places of those that always stay, counted from 0."""

    messages: tuple[Message, ...]
    pinned: tuple[int, ...] = ()


class ContextRead(Call[ContextMessages], frozen=True, tag="context_read"):
    """Read the messages that a model is shown in a context."""

    context: ContextId
