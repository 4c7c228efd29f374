"""The client for plain code: the methods of `aios.Client`, each of which waits. Needs no event loop over a Unix socket.

with blocking.connect() as client:
    print(client.chat("Say hello.").text)
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, Unpack, overload

from aios.abi.budget import Budget, BudgetInfo, Limits, OnBreach, SetBudget
from aios.abi.call import Answer, Call
from aios.abi.calls import (
    Admit,
    ChatAnswer,
    CompleteAnswer,
    Cont,
    Embed,
    Embeddings,
    Exited,
    ExitSelf,
    GetPid,
    Guest,
    Info,
    KernelInfo,
    Kill,
    Log,
    LogEnd,
    Logs,
    Nice,
    Ps,
    Self,
    SendSignal,
    Shutdown,
    SignalName,
    Spawned,
    Stop,
    TokenCount,
    Tokenize,
    Tokens,
    Wait,
)
from aios.abi.gate import Line, Progress, Result, Token
from aios.abi.pages import Pages, PageStoreInfo
from aios.abi.recovery import Restart
from aios.abi.types import JsonObject, LogLine, Pid, ProcessInfo
from aios.sdk.address import find_address
from aios.sdk.blocking_socket import BlockingUnixGate
from aios.sdk.replies import ChatReply, CompleteReply, chat_reply, complete_reply
from aios.sdk.requests import (
    ChatOptions,
    GenerateOptions,
    Messages,
    Schema,
    Tools,
    build,
    chat_call,
    complete_call,
    count_tokens_call,
    spawn_call,
)
from aios.sdk.room import Room

if TYPE_CHECKING:
    from aios.abi.contexts import WindowPolicy
    from aios.sdk.approvals import BlockingApprovals
    from aios.sdk.blocking_contexts import BlockingContext, BlockingContexts
    from aios.sdk.branches import BlockingBranches
    from aios.sdk.checkpoints import BlockingCheckpoints
    from aios.sdk.files_blocking import BlockingFiles
    from aios.sdk.journal import BlockingJournal
    from aios.sdk.mail import BlockingMail
    from aios.sdk.mcp import BlockingMcpClient
    from aios.sdk.memory import BlockingMemory
    from aios.sdk.recovery import BlockingRepeatable
    from aios.sdk.sched import BlockingScheduling
    from aios.sdk.timers import BlockingTimers
    from aios.sdk.toolbox import BlockingToolbox

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class BlockingFrames(Protocol[A]):
    """The frames of one call, for code that waits."""

    def __iter__(self) -> Iterator[Progress]:
        """Iterate over the frames before the end; raises the `AiosError` of a `Fault`."""
        ...

    def result(self) -> Result[A]:
        """Skip what was not read and return the end of the call."""
        ...


class BlockingGate(Protocol):
    """A way into the kernel for code that waits."""

    def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end."""
        ...

    def open_call(self, call: Call[A]) -> AbstractContextManager[BlockingFrames[A]]:
        """Make a call and read its frames; leaving the block early cancels the call."""
        ...


class Client:
    """System calls on behalf of one process: the one that `gate` stands for.

    Arguments, answers and errors are those of `aios.Client`, whose methods say more. A client may be used by many
    threads at once.
    """

    files: "Room[BlockingFiles]" = Room("aios.sdk.files_blocking:BlockingFiles")
    mail: "Room[BlockingMail]" = Room("aios.sdk.mail:BlockingMail")
    journal: "Room[BlockingJournal]" = Room("aios.sdk.journal:BlockingJournal")
    branches: "Room[BlockingBranches]" = Room("aios.sdk.branches:BlockingBranches")
    approvals: "Room[BlockingApprovals]" = Room("aios.sdk.approvals:BlockingApprovals")
    checkpoints: "Room[BlockingCheckpoints]" = Room("aios.sdk.checkpoints:BlockingCheckpoints")
    repeatable: "Room[BlockingRepeatable]" = Room("aios.sdk.recovery:BlockingRepeatable")
    timers: "Room[BlockingTimers]" = Room("aios.sdk.timers:BlockingTimers")
    sched: "Room[BlockingScheduling]" = Room("aios.sdk.sched:BlockingScheduling")
    memory: "Room[BlockingMemory]" = Room("aios.sdk.memory:BlockingMemory")
    tools: "Room[BlockingToolbox]" = Room("aios.sdk.toolbox:BlockingToolbox")
    mcp: "Room[BlockingMcpClient]" = Room("aios.sdk.mcp:BlockingMcpClient")

    def __init__(self, gate: BlockingGate) -> None:
        self.gate = gate

    @cached_property
    def contexts(self) -> "BlockingContexts":
        """The contexts of the process: conversations that the kernel keeps."""
        from aios.sdk.blocking_contexts import BlockingContexts  # noqa: PLC0415 - as in `Room`

        return BlockingContexts(self)

    # --- models --------------------------------------------------------------------------------------------------

    @overload
    def chat(
        self, messages: Messages, *, schema: type[T], **options: Unpack[ChatOptions]
    ) -> ChatReply[T]: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        schema: JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply[object]: ...

    def chat(
        self,
        messages: Messages,
        *,
        schema: type[T] | JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply[T]:
        """Let a model write the next message of a conversation; see `aios.Client.chat`."""
        return chat_reply(self.gate.call(chat_call(messages, schema, **options)), schema)

    @overload
    def stream_chat(
        self, messages: Messages, *, schema: type[T], **options: Unpack[ChatOptions]
    ) -> "AbstractContextManager[ChatStream[T]]": ...

    @overload
    def stream_chat(
        self,
        messages: Messages,
        *,
        schema: JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> "AbstractContextManager[ChatStream[object]]": ...

    def stream_chat(
        self,
        messages: Messages,
        *,
        schema: type[T] | JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> "AbstractContextManager[ChatStream[T]]":
        """`chat`, piece by piece; leaving the block early cancels the call.

        with client.stream_chat("Why?") as stream:
            for text in stream:
                ...
            reply = stream.reply()
        """
        return self._stream_chat(messages, schema, options)

    def complete(
        self, prompt: str, *, schema: Schema = None, **options: Unpack[GenerateOptions]
    ) -> CompleteReply:
        """Let a model go on with a text, without a chat template."""
        return complete_reply(self.gate.call(complete_call(prompt, schema, **options)))

    @contextmanager
    def stream_complete(
        self, prompt: str, *, schema: Schema = None, **options: Unpack[GenerateOptions]
    ) -> "Iterator[CompleteStream]":
        """`complete`, piece by piece, as in `stream_chat`."""
        with self.gate.open_call(complete_call(prompt, schema, **options)) as frames:
            yield CompleteStream(frames)

    def embed(
        self, texts: str | Sequence[str], *, model: str = "", deadline_s: float | None = None
    ) -> Embeddings:
        """Turn texts into vectors of length 1, in `.vectors`."""
        listed = (texts,) if isinstance(texts, str) else tuple(texts)
        call = build(Embed, texts=listed, model=model, deadline_s=deadline_s)
        return self.gate.call(call).value

    def tokenize(self, text: str, *, model: str = "") -> Tokens:
        """Cut a text into the tokens of a model, without its special tokens."""
        return self.gate.call(build(Tokenize, text=text, model=model)).value

    def count_tokens(self, messages: Messages, *, tools: Tools = (), model: str = "") -> TokenCount:
        """Count the tokens of a conversation as the model would see it, template and tools included."""
        return self.gate.call(count_tokens_call(messages, tools, model)).value

    @contextmanager
    def context(
        self,
        *,
        system: str = "",
        messages: Messages = (),
        tools: Tools = (),
        model: str = "",
        window: "str | WindowPolicy | None" = None,
    ) -> "Iterator[BlockingContext]":
        """A conversation that the kernel keeps, for the length of the block; see `aios.Client.context`."""
        with self.contexts.open(
            system=system, messages=messages, tools=tools, model=model, window=window
        ) as context:
            yield context

    # --- processes -----------------------------------------------------------------------------------------------

    def spawn(
        self,
        program: str | os.PathLike[str],
        *args: str,
        name: str | None = None,
        nice: int = 0,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        budget: Limits | None = None,
        read: Sequence[str | os.PathLike[str]] | None = None,
        write: Sequence[str | os.PathLike[str]] | None = None,
        restart: Restart | None = None,
        block_bytes: int | None = None,
    ) -> Spawned:
        """Start a program folder (with `agent.toml`) as a child process; see `aios.Client.spawn`."""
        call = spawn_call(
            program,
            args,
            name=name,
            nice=nice,
            cwd=cwd,
            env=env,
            budget=budget,
            read=read,
            write=write,
            restart=restart,
            block_bytes=block_bytes,
        )
        return self.gate.call(call).value

    def wait(self, pid: int | None = None, *, deadline_s: float | None = None) -> Exited:
        """Wait until a process has ended; without `pid`, until any child that was not waited for has."""
        return self.gate.call(build(Wait, pid=pid, deadline_s=deadline_s)).value

    def kill(self, pid: int, reason: str = "") -> tuple[Pid, ...]:
        """End a process and its descendants; returns whom it reached."""
        return self.gate.call(build(Kill, pid=pid, reason=reason)).value.pids

    def signal(self, pid: int, signal: SignalName) -> tuple[Pid, ...]:
        """Send TERM, KILL, STOP, CONT or USR1; returns whom it reached."""
        return self.gate.call(build(SendSignal, pid=pid, signal=signal)).value.pids

    def stop(self, pid: int) -> tuple[Pid, ...]:
        """Hold a process and its descendants until `cont`; returns whom it reached."""
        return self.gate.call(build(Stop, pid=pid)).value.pids

    def cont(self, pid: int) -> tuple[Pid, ...]:
        """Let a stopped process and its descendants go on; returns whom it reached."""
        return self.gate.call(build(Cont, pid=pid)).value.pids

    def ps(self, *, include_ended: bool = False) -> tuple[ProcessInfo, ...]:
        """The processes that the caller may see, by pid; also ended ones that are remembered, if asked."""
        return self.gate.call(build(Ps, all=include_ended)).value.processes

    def getpid(self) -> Self:
        """Who the caller is: `.pid`, `.ppid`, `.name`."""
        return self.gate.call(GetPid()).value

    def exit(self, status: int = 0, result: str = "") -> None:
        """End the calling process; `result` is what `wait` hands to others, at most 1 MiB of text."""
        self.gate.call(build(ExitSelf, status=status, result=result))

    def nice(self, pid: int, nice: int) -> int:
        """Set how willing a process is to wait, -20 (first) to 19 (last); returns the value now in force."""
        return self.gate.call(build(Nice, pid=pid, nice=nice)).value.nice

    def budget(self, pid: int) -> BudgetInfo:
        """What a process and all that it starts may spend, have spent, and hold."""
        return (self.gate.call(build(Budget, pid=pid))).value

    def set_budget(self, pid: int, limits: Limits, *, on_breach: OnBreach = "pause") -> BudgetInfo:
        """Set the limits of a descendant and all that it starts; what `limits` leaves out is lifted.

        Args:
            pid: The process.
            limits: `aios.Limits(completion_tokens=10_000)` and the like.
            on_breach: `pause` stops the process when a call does not fit, `fail` lets the call fail.

        Raises:
            AccessDenied: It is the caller itself, or not its descendant.
        """
        call = build(SetBudget, pid=pid, limits=limits, on_breach=on_breach)
        return (self.gate.call(call)).value

    # --- logs and the kernel -------------------------------------------------------------------------------------

    def log(self, text: str) -> None:
        """Write into the caller's log; each line of the text becomes a line there."""
        self.gate.call(build(Log, text=text))

    @contextmanager
    def logs(
        self, pid: int, *, follow: bool = False, tail: int | None = None
    ) -> "Iterator[LogStream]":
        """Read the log of a process; `follow` goes on until it ends, `tail` starts with the last lines."""
        with self.gate.open_call(build(Logs, pid=pid, follow=follow, tail=tail)) as frames:
            yield LogStream(frames)

    def info(self) -> KernelInfo:
        """What runs here: version, addresses, engines, counts."""
        return self.gate.call(Info()).value

    def pages(self) -> tuple[PageStoreInfo, ...]:
        """What the page stores hold, one for each model that pages."""
        return self.gate.call(Pages()).value.stores

    def admit(self, name: str = "guest") -> Guest:
        """Make a guest process, a third-party client, and its token, which is shown this once."""
        return self.gate.call(build(Admit, name=name)).value

    def shutdown(self) -> None:
        """Ask the kernel to drain and end; only its owner may."""
        self.gate.call(Shutdown())

    @contextmanager
    def _stream_chat(
        self, messages: Messages, schema: type[T] | JsonObject | None, options: ChatOptions
    ) -> "Iterator[ChatStream[T]]":
        with self.gate.open_call(chat_call(messages, schema, **options)) as frames:
            yield ChatStream(frames, schema)


class ChatStream(Generic[T]):
    """The pieces of a reply as they come. Iterate once; a slow reader gets larger pieces."""

    def __init__(self, frames: BlockingFrames[ChatAnswer], schema: object = None) -> None:
        self._frames = frames
        self._pieces = _texts(frames)
        self._schema = schema

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def reply(self) -> ChatReply[T]:
        """The whole reply; waits for its end and skips pieces that were not read."""
        return chat_reply(self._frames.result(), self._schema)


class CompleteStream:
    """The pieces of a completion as they come."""

    def __init__(self, frames: BlockingFrames[CompleteAnswer]) -> None:
        self._frames = frames
        self._pieces = _texts(frames)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def reply(self) -> CompleteReply:
        """The whole of it; waits for its end and skips pieces that were not read."""
        return complete_reply(self._frames.result())


class LogStream:
    """Lines of a log as they come. `n_missed` lines were dropped so far because the reader was too slow."""

    def __init__(self, frames: BlockingFrames[LogEnd]) -> None:
        self.n_missed = 0
        self._frames = frames

    def __iter__(self) -> Iterator[LogLine]:
        for frame in self._frames:
            if isinstance(frame, Line):
                self.n_missed += frame.n_missed
                yield frame.line

    def end(self) -> LogEnd:
        """How many lines there were, and how many had been dropped before; waits for the end."""
        return self._frames.result().value


@contextmanager
def connect(url: str | None = None, token: str | None = None) -> Iterator[Client]:
    """A client of a running kernel, for the length of the block; see `aios.connect` for arguments and errors."""
    address = find_address(url, token)
    if address.unix_path is not None:
        with BlockingUnixGate(address.unix_path, address.token) as gate:
            yield Client(gate)
    else:
        from aios.sdk.portal import open_http_gate  # noqa: PLC0415 - start-up time: anyio and httpx

        with open_http_gate(address.url, address.token) as portal_gate:
            yield Client(portal_gate)


def _texts(frames: BlockingFrames[A]) -> Iterator[str]:
    for frame in frames:
        if isinstance(frame, Token) and frame.text:
            yield frame.text
