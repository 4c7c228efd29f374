"""The calls about contexts: conversations that the kernel keeps. What they do is `kernel/context/contexts.py`.

A chat goes on in one by naming it (`Chat.context`): then only the new messages are sent, and the answer is kept.
"""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from aios.abi.call import Answer, Call, Done, ModelName
from aios.abi.cuts import Compaction as Compaction
from aios.abi.cuts import Cut as Cut
from aios.abi.types import MAX_INT, Count, Message, Pid, ToolSpec
from aios.abi.types import ContextId as ContextId


class WindowPolicy(Enum):
    """What leaves a context when it no longer fits into the model's window."""

    NONE = "none"  # nothing: a chat that does not fit is refused
    DROP_OLDEST = "drop-oldest"  # the oldest turns go
    SUMMARISE = "summarise"  # a summary that the model writes stands for them
    PAGE_TO_MEMORY = "page-to-memory"  # a pointer stands for them, which leads back to them


SnapshotName = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?!\n)$")
]

NewMessages = Annotated[tuple[Message, ...], Meta(max_length=100_000)]
SomeMessages = Annotated[tuple[Message, ...], Meta(min_length=1, max_length=100_000)]
ContextTools = Annotated[tuple[ToolSpec, ...], Meta(max_length=1024)]


class ContextInfo(Answer, frozen=True):
    """A context without its messages.

    `unanswered` are the ids of tool calls whose results must come next. `n_tokens` is the length of its prompt with the
    last answer, as the engine counted it; 0 before the first. `writer` is the pid that writes in it now. `compactions` can be
    undone, the last one first; `n_faults` counts pages that were read back.
    """

    id: ContextId
    pid: Pid
    model: str
    n_messages: Count
    size_bytes: Count
    n_tokens: Count
    unanswered: tuple[str, ...] = ()
    writer: Pid | None = None
    window: WindowPolicy = WindowPolicy.NONE
    compactions: tuple[Compaction, ...] = ()
    n_pages: Count = 0
    n_faults: Count = 0


class ContextOpen(Call[ContextInfo], frozen=True, tag="context_open"):
    """Make a context, which belongs to the caller and ends with it.

    `messages` are its beginning, kept whatever leaves the window if `is_pinned`; `tools` and `model` are those of every
    chat in it that names no others. `window` says what leaves when it is full; None stands for `context.window`.

    Raises:
        InvalidCall: The messages are no conversation.
        ResourceExhausted: The caller has `context.max_contexts` already, or its family holds 256 MiB in contexts.
        TooLarge: They are more than one context may hold, or the tools are.
    """

    messages: NewMessages = ()
    tools: ContextTools = ()
    model: ModelName = ""
    is_pinned: bool = False
    window: WindowPolicy | None = None


class ContextAppend(Call[ContextInfo], frozen=True, tag="context_append"):
    """Add messages without asking a model; `is_pinned` keeps them whatever leaves the window.

    Raises:
        Conflict: Somebody writes in it now.
        InvalidCall: They do not follow on what is there: a result without its call, two results of one call, a call
            without its result, an assistant's message with nothing to answer. Nothing is added then.
        ResourceExhausted: The family of its owner would hold over 256 MiB in contexts.
        TooLarge: They are more than one context may hold.
    """

    context: ContextId
    messages: SomeMessages
    is_pinned: bool = False


class ContextFork(Call[ContextInfo], frozen=True, tag="context_fork"):
    """Make a second context with the same messages, which belongs to the caller; no model works and nothing is copied."""

    context: ContextId


class ContextClose(Call[Done], frozen=True, tag="context_close"):
    """Forget a context. A call that writes in it now fails when it comes to its end."""

    context: ContextId


class ContextStat(Call[ContextInfo], frozen=True, tag="context_stat"):
    """Ask about one context."""

    context: ContextId


class ContextInfos(Answer, frozen=True):
    """Contexts by id."""

    contexts: tuple[ContextInfo, ...]


class ContextList(Call[ContextInfos], frozen=True, tag="context_list"):
    """List the contexts of the caller and its descendants; for the owner, all.

    All of them share 1 MiB for `compactions` and `unanswered`; behind that they are empty, and `context_stat` has them.
    """


class ContextMessages(Answer, frozen=True):
    """Messages of a context, in order; `pinned` are the places of those that always stay, counted from 0."""

    messages: tuple[Message, ...]
    pinned: tuple[int, ...] = ()


class ContextRead(Call[ContextMessages], frozen=True, tag="context_read"):
    """Read the messages that a model is shown in a context."""

    context: ContextId


class Compacted(Answer, frozen=True):
    """A context was made shorter, or was short enough: then nothing left it. `pointer` leads to what left, 0 for none."""

    compaction: Compaction
    pointer: Count = 0
    cut: Cut | None = None


class ContextCompact(Call[Compacted], frozen=True, tag="context_compact"):
    """Make a context shorter than `target_tokens`, or than the share of the window that `context.target_share` says.

    The system message and pinned messages stay, and so does the last turn's beginning and end; a tool call leaves with all
    its results. `window` is the policy for this once; without it the context's own, or `drop-oldest` if that is `none`.

    Raises:
        Conflict: Somebody writes in it now.
        ContextWindowExceeded: What must stay does not fit into the window.
        EngineUnavailable: No engine is there to count for.
    """

    context: ContextId
    window: WindowPolicy | None = None
    target_tokens: Annotated[int, Meta(ge=1, le=MAX_INT)] | None = None


class ContextUndo(Call[ContextInfo], frozen=True, tag="context_undo"):
    """Undo the last compaction: what left is back in its place, and what was added since stays.

    Raises:
        Conflict: There is none to undo, or somebody writes in it now.
    """

    context: ContextId


class ContextFault(Call[ContextMessages], frozen=True, tag="context_fault"):
    """Read back what a pointer leads to; with `is_restoring` it also takes the place of the note in the window.

    Raises:
        Conflict: It is to be restored, and its note is not in the window, or somebody writes there now.
        NotFound: The context has no such pointer.
    """

    context: ContextId
    pointer: Annotated[int, Meta(ge=1, le=MAX_INT)]
    is_restoring: bool = False


class SnapshotInfo(Answer, frozen=True):
    """A named snapshot of a context. `fingerprint` names the model, its quantisation and the type of its KV cells.

    `taint` is where data in it came from outside, empty if none did.
    """

    name: str
    owner: str
    model: str
    fingerprint: str
    n_messages: Count
    size_bytes: Count
    saved_unix_s: float
    taint: str = ""


class ContextSnapshot(Call[SnapshotInfo], frozen=True, tag="context_snapshot"):
    """Write a context to disk under a name; when it returns, the snapshot survives a crash.

    Names belong to the owner of the caller: all its processes share them.

    Raises:
        Conflict: The name is taken by another text, and not `is_replacing`.
        ResourceExhausted: The owner has `context.max_snapshots`, or the disk is full.
    """

    context: ContextId
    name: SnapshotName
    is_replacing: bool = False


class ContextRestore(Call[ContextInfo], frozen=True, tag="context_restore"):
    """Make a context from a snapshot of the caller's owner; it belongs to the caller.

    With `is_text_only` another model may go on with it; it then computes all of it anew.

    Raises:
        NotFound: No snapshot has that name, or no engine serves its model.
        SnapshotIncompatible: Another model, quantisation or KV type wrote it, or it is damaged.
    """

    name: SnapshotName
    is_text_only: bool = False


class SnapshotInfos(Answer, frozen=True):
    """Snapshots by name."""

    snapshots: tuple[SnapshotInfo, ...]


class ContextSnapshots(Call[SnapshotInfos], frozen=True, tag="context_snapshots"):
    """List the snapshots of the caller's owner."""


class ContextForget(Call[Done], frozen=True, tag="context_forget"):
    """Remove a snapshot of the caller's owner.

    Raises:
        NotFound: No snapshot has that name.
    """

    name: SnapshotName
