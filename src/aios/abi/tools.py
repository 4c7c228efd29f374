"""The calls about tools. What they do is `kernel/tools/`; docs/concepts/tools.md tells how it fits together.

A tool has a name, `author/tool` or plain for those that come with the kernel, and it is always called by that name. What it says
of itself (its *traits*) decides what may run beside it and what is noted before it runs.
"""

from enum import Enum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call, Done
from aios.abi.types import MAX_INT, Count, JsonObject, Pid, ShortText

ToolName = Annotated[
    str, Meta(min_length=1, max_length=192, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*(?!\n)$")
]
FunctionName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+(?!\n)$")]
Template = Annotated[str, Meta(min_length=1, max_length=1024)]
Templates = Annotated[tuple[Template, ...], Meta(max_length=32)]
OptionalName = Annotated[
    str, Meta(max_length=192, pattern=r"^([A-Za-z0-9_][A-Za-z0-9._/-]*)?(?!\n)$")
]
EffectName = Literal["pure", "reversible", "compensable", "irreversible"]

UNDOABLE = ("reversible", "compensable")
"""Effects of tools that may name an undo."""
MAX_RESULT_BYTES = 8 << 20
"""The longest result of a tool; a longer one is a failure of the tool."""
ResultText = Annotated[str, Meta(max_length=MAX_RESULT_BYTES)]
JobId = Annotated[int, Meta(ge=1, le=MAX_INT)]


class ToolKind(Enum):
    """Where a tool runs."""

    BUILTIN = "builtin"  # in the kernel, by system calls of the caller's own
    FUNCTION = "function"  # in the process that registered it
    EXECUTABLE = "executable"  # a child process of the operating system, by a manifest
    MCP = "mcp"  # a server of the Model Context Protocol
    AGENT = "agent"  # a program that is spawned as a child of the caller, by a manifest


class Traits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a tool says of itself.

    `effect` is what it does to the world; `is_pure` says besides that its result depends on its arguments alone, so it may be
    kept and given again. `reads` and `writes` are its footprint: paths (`/shared/{name}`, `~/{path}` below the caller's folder) and
    names of resources (`db/{table}`), where `{name}` stands for an argument. Calls whose footprints overlap, and of which one
    writes, run one after the other; a footprint covers what is below it. At most `max_parallel` calls run at once, 0 sets no
    limit. `timeout_s` counts from the moment it runs, without waits. `cost` is what a call takes of a budget of tool calls.

    The rest says what is done about a call that a crash cuts off. `undo` names a tool of the same provider: the kernel runs it, with the
    arguments of that call, and makes the call again. It must do no harm where the call had done nothing, and stand being run twice.
    `is_idempotent`: a second call with the same arguments does nothing more, so it is just made again. `key` names a parameter that the kernel
    fills in, and no caller: a text that no other call has. An undo gets that of the call which it undoes, if it names one of its own.
    """

    effect: EffectName = "irreversible"
    reads: Templates = ()
    writes: Templates = ()
    max_parallel: Annotated[int, Meta(ge=0, le=100_000)] = 0
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    is_pure: bool = False
    cost: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    undo: OptionalName = ""
    is_idempotent: bool = False
    key: OptionalName = ""

    def __post_init__(self) -> None:
        if self.undo and self.effect not in UNDOABLE:
            raise ValueError(
                f'`undo` needs `effect` to be "reversible" or "compensable", and it is "{self.effect}"'
            )


class ToolDeclaration(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool as it is registered: `parameters` and `returns` are JSON Schemas (2020-12), `returns` of its result, if that is JSON."""

    name: FunctionName
    description: ShortText = ""
    parameters: JsonObject = {}
    returns: JsonObject | None = None
    traits: Traits = Traits()


class ToolInfo(Struct, frozen=True):
    """A tool as others see it. `provider` is the process in which it runs; `version` is another one whenever it changes."""

    name: str
    kind: ToolKind
    description: str
    parameters: JsonObject
    returns: JsonObject | None
    traits: Traits
    version: str
    provider: Pid | None = None
    n_running: Count = 0
    n_waiting: Count = 0
    n_runs: Count = 0
    n_failed: Count = 0


class ToolNames(Answer, frozen=True):
    """The names under which tools can be run."""

    names: tuple[str, ...]


class ToolRegister(Call[ToolNames], frozen=True, tag="tool_register"):
    """Offer functions of the caller as tools, all or none; they are gone when it ends. Their names are `NAME/tool`.

    NAME is that of the process; it alone may leave it out. The same owner's processes may run them, and the kernel hands each
    call back by `tool_take`. A tool that the caller registers again takes the place of the old one. `manifests` are files
    that describe executables and agents, which stay; only the owner of the kernel may add them.

    Raises:
        AccessDenied: `manifests` of somebody else than the owner.
        Conflict: Another tool has the name already.
        InvalidCall: A schema or a manifest is malformed; the message says where.
        ResourceExhausted: The process would offer more tools than it may (256), or what it says of them is over 1 MiB.
    """

    tools: Annotated[tuple[ToolDeclaration, ...], Meta(max_length=256)] = ()
    manifests: Annotated[tuple[ShortText, ...], Meta(max_length=64)] = ()


class ToolUnregister(Call[Done], frozen=True, tag="tool_unregister"):
    """Withdraw tools of the caller; the owner may withdraw those of manifests, too. Calls that run go on.

    Raises:
        NotFound: It is none of the caller's.
    """

    names: Annotated[tuple[ToolName, ...], Meta(min_length=1, max_length=256)]


class Tools(Answer, frozen=True):
    """Tools by name; with `next` as `after`, a list goes on behind the last."""

    tools: tuple[ToolInfo, ...]
    next: str = ""


class ToolList(Call[Tools], frozen=True, tag="tool_list"):
    """The tools that the caller may run; those of over 16 MiB come in several answers."""

    after: ShortText = ""


class ToolDescribe(Call[Tools], frozen=True, tag="tool_describe"):
    """Look at some tools, in the order of the names.

    Raises:
        NotFound: There is none of that name, or it is not for the caller.
    """

    names: Annotated[tuple[ToolName, ...], Meta(min_length=1, max_length=256)]


class ToolResult(Answer, frozen=True):
    """What a tool brought. `text` is text, or JSON if `is_json`.

    A long result is kept in the caller's file `kept_at`, and `text` is only its beginning; `size_bytes` counts all of it. `notes` say
    what else one should know: how arguments were repaired, where the rest is.
    """

    text: str
    is_json: bool = False
    size_bytes: Count = 0
    kept_at: str = ""
    notes: tuple[str, ...] = ()
    is_cached: bool = False


class ToolRun(Call[ToolResult], frozen=True, tag="tool_run"):
    """Run a tool. The effect that is noted is the one that the tool declares.

    `arguments` are an object, or the JSON text that a model wrote; what is nearly JSON is repaired once, and the result says so. A text
    holds at most 16,384 values; an object holds as many as a call may.

    Raises:
        AccessDenied: The tool does what the caller may not.
        InvalidCall: The arguments do not fit; the message says what to write instead.
        NotFound: There is no such tool, or it is not for the caller.
        ResourceExhausted: Too many calls wait.
        ToolFailed: It raised, did not end in time, ended with its process, or brought what it should not.
    """

    name: ToolName
    arguments: JsonObject | Annotated[str, Meta(max_length=MAX_RESULT_BYTES)] = {}  # noqa: RUF012 - msgspec copies it


CUT_OFF = "it was cut off, and may or may not have taken effect"
"""The error of a call in whose middle the program that serves the tool ended."""


class JobEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """How a call of one of the caller's tools ended: with `text` (JSON if `is_json`), or with an `error`."""

    id: JobId
    text: ResultText = ""
    is_json: bool = False
    error: Annotated[str, Meta(max_length=8192)] = ""


class ToolJob(Struct, frozen=True):
    """A call of one of the caller's tools, for it to carry out. `arguments` is JSON text that fits the tool's parameters.

    With an `end` it is over, and the caller is a program that runs again: it hands that end in and does nothing.
    """

    id: int
    tool: str
    arguments: str
    caller: Pid
    end: JobEnd | None = None


class ToolJobs(Answer, frozen=True):
    """Calls to begin with, and calls that nobody wants any more; each comes once.

    `n_wanted` more takes would have a call each, or the last of them wait for the next one: who runs calls side by side makes them.
    """

    jobs: tuple[ToolJob, ...]
    cancelled: tuple[int, ...] = ()
    n_wanted: Count = 0


class ToolTake(Call[ToolJobs], frozen=True, tag="tool_take"):
    """Take calls of the caller's own tools; waits until there is one, or one was cancelled.

    Each call is answered by the next take, in its `returns`, or by `tool_return`. Those that have ended already are passed over: nobody
    wants them. With `limit` 0 only what was cancelled is told.
    """

    limit: Annotated[int, Meta(ge=0, le=256)] = 16
    returns: Annotated[tuple[JobEnd, ...], Meta(max_length=256)] = ()


class ToolReturn(Call[Done], frozen=True, tag="tool_return"):
    """Say how a call of one of the caller's tools ended, by one who takes no other now.

    Raises:
        NotFound: There is no such call of a tool of the caller's, or it has ended already.
    """

    id: JobId
    text: ResultText = ""
    is_json: bool = False
    error: Annotated[str, Meta(max_length=8192)] = ""
