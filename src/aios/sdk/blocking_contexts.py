"""The same contexts for plain code: the methods of `aios.sdk.contexts`, each of which waits.

with client.context(system="You are brief.", window="drop-oldest") as context:
    print(context.chat("Name a sea.").text)
"""

from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, Unpack, overload

from aios.abi.contexts import (
    Compacted,
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextForget,
    ContextFork,
    ContextId,
    ContextInfo,
    ContextList,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextSnapshots,
    ContextStat,
    ContextUndo,
    SnapshotInfo,
    WindowPolicy,
)
from aios.abi.types import JsonObject, Message
from aios.errors import NotFound
from aios.sdk.contexts import open_context_call
from aios.sdk.replies import ChatReply
from aios.sdk.requests import ChatOptions, Messages, Tools, build, messages_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aios.sdk.blocking import ChatStream, Client

T = TypeVar("T")


class BlockingContext:
    """One conversation of the process that `client` stands for. Leaving its block closes it.

    It has one writer at a time: two chats at once in one context are a `Conflict`; fork it instead.
    """

    def __init__(self, client: "Client", context_id: int) -> None:
        self.id = ContextId(context_id)
        self._client = client

    def __enter__(self) -> "BlockingContext":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @overload
    def chat(
        self, messages: Messages = (), *, schema: type[T], **options: Unpack[ChatOptions]
    ) -> ChatReply[T]: ...

    @overload
    def chat(
        self,
        messages: Messages = (),
        *,
        schema: JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply[object]: ...

    def chat(
        self,
        messages: Messages = (),
        *,
        schema: type[T] | JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply[T]:
        """Let a model go on after these messages; they and the answer are kept, or neither if it fails.

        Arguments and errors are those of `Client.chat`, and:

        Raises:
            Conflict: Another call writes in the context.
            InvalidCall: The messages do not follow on what is there.
        """
        options["context"] = self.id
        return self._client.chat(messages, schema=schema, **options)  # type: ignore[return-value]  # an overload for each kind of schema

    def stream_chat(
        self, messages: Messages = (), **options: Unpack[ChatOptions]
    ) -> "AbstractContextManager[ChatStream[object]]":
        """`chat`, piece by piece; leaving the block early cancels the call and leaves the context as it was."""
        options["context"] = self.id
        return self._client.stream_chat(messages, **options)

    def append(self, messages: Messages, *, is_pinned: bool = False) -> ContextInfo:
        """Add messages without asking a model; pinned ones never leave the window.

        Raises:
            Conflict: Another call writes in the context.
            InvalidCall: They do not follow on what is there; nothing is added.
            TooLarge: They are more than a context may hold.
        """
        new = messages_of(messages)
        call = build(ContextAppend, context=self.id, messages=new, is_pinned=is_pinned)
        return (self._client.gate.call(call)).value

    def fork(self) -> "BlockingContext":
        """A second context with the same messages; no model works. The caller closes it."""
        info = (self._client.gate.call(ContextFork(context=self.id))).value
        return BlockingContext(self._client, info.id)

    def snapshot(self, name: str, *, is_replacing: bool = False) -> SnapshotInfo:
        """Keep it on disk under a name, which belongs to the owner of the process.

        Raises:
            Conflict: The name is taken by another text.
            ResourceExhausted: There are too many, or the disk is full.
        """
        call = build(ContextSnapshot, context=self.id, name=name, is_replacing=is_replacing)
        return (self._client.gate.call(call)).value

    def compact(
        self, window: str | WindowPolicy | None = None, *, target_tokens: int | None = None
    ) -> Compacted:
        """Let old turns leave, by a policy or the context's own, until `target_tokens` or the configured share is left.

        Raises:
            ContextWindowExceeded: What must stay does not fit into the window.
        """
        call = build(ContextCompact, context=self.id, window=window, target_tokens=target_tokens)
        return (self._client.gate.call(call)).value

    def undo(self) -> ContextInfo:
        """Undo the last compaction; what was added since stays.

        Raises:
            Conflict: There is none.
        """
        return (self._client.gate.call(ContextUndo(context=self.id))).value

    def fault(self, pointer: int, *, is_restoring: bool = False) -> tuple[Message, ...]:
        """What a pointer in the context leads to; `is_restoring` also puts it back in its place.

        Raises:
            NotFound: The context has no such pointer.
        """
        call = build(ContextFault, context=self.id, pointer=pointer, is_restoring=is_restoring)
        return (self._client.gate.call(call)).value.messages

    def messages(self) -> tuple[Message, ...]:
        """What a model is shown."""
        return (self._client.gate.call(ContextRead(context=self.id))).value.messages

    def stat(self) -> ContextInfo:
        """Its size, what waits for a result, what can be undone."""
        return (self._client.gate.call(ContextStat(context=self.id))).value

    def close(self) -> None:
        """Forget it; twice is nothing."""
        try:
            self._client.gate.call(ContextClose(context=self.id))
        except NotFound:
            return


class BlockingContexts:
    """The contexts that a client reaches, and the snapshots of its owner."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def open(
        self,
        *,
        system: str = "",
        messages: Messages = (),
        tools: Tools = (),
        model: str = "",
        window: str | WindowPolicy | None = None,
    ) -> BlockingContext:
        """Make a context; `client.context` also closes it.

        Args:
            system: The system message.
            messages: How the conversation begins.
            tools: Those of every chat in it that names no others.
            model: Likewise.
            window: What leaves when it is full: none, drop-oldest, summarise or page-to-memory; else the kernel's default.

        Raises:
            InvalidCall: The messages are no conversation.
            ResourceExhausted: The process has too many contexts.
        """
        call = open_context_call(
            system=system, messages=messages, tools=tools, model=model, window=window
        )
        return BlockingContext(self._client, (self._client.gate.call(call)).value.id)

    def get(self, context_id: int) -> BlockingContext:
        """The context of that id, which may be a descendant's; leaving its block would close it."""
        return BlockingContext(self._client, context_id)

    def list_all(self) -> tuple[ContextInfo, ...]:
        """The contexts of the process and its descendants."""
        return (self._client.gate.call(ContextList())).value.contexts

    def restore(self, name: str, *, is_text_only: bool = False) -> BlockingContext:
        """A new context of a snapshot; with `is_text_only` another model may go on with it.

        Raises:
            NotFound: No snapshot has that name.
            SnapshotIncompatible: Another model, quantisation or KV type wrote it, or it is damaged.
        """
        call = build(ContextRestore, name=name, is_text_only=is_text_only)
        return BlockingContext(self._client, (self._client.gate.call(call)).value.id)

    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots of the owner, by name."""
        return (self._client.gate.call(ContextSnapshots())).value.snapshots

    def forget(self, name: str) -> None:
        """Remove a snapshot.

        Raises:
            NotFound: No snapshot has that name.
        """
        self._client.gate.call(build(ContextForget, name=name))
