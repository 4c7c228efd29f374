"""The async client: one typed method for every system call."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack, overload

from aios.abi.budget import Budget, BudgetInfo, Limits, OnBreach, SetBudget
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
from aios.abi.gate import Frames, Gate, Line, Token
from aios.abi.pages import Pages, PageStoreInfo
from aios.abi.recovery import Restart
from aios.abi.types import JsonObject, LogLine, Pid, ProcessInfo
from aios.sdk.address import find_address
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
    from aios.sdk.approvals import Approvals
    from aios.sdk.branches import Branches
    from aios.sdk.checkpoints import Checkpoints
    from aios.sdk.contexts import Context, Contexts
    from aios.sdk.files import Files
    from aios.sdk.journal import Journal
    from aios.sdk.mail import Mail
    from aios.sdk.mcp import McpClient
    from aios.sdk.memory import Memory
    from aios.sdk.recovery import Repeatable
    from aios.sdk.sched import Scheduling
    from aios.sdk.timers import Timers
    from aios.sdk.toolbox import Toolbox

T = TypeVar("T")


class Client:
    """System calls on behalf of one process: the one that `gate` stands for.

    Every method raises the `AiosError` that the kernel answers with; cancelling the caller cancels the call. A client
    may be used by many tasks at once.
    """

    files: "Room[Files]" = Room("aios.sdk.files:Files")
    mail: "Room[Mail]" = Room("aios.sdk.mail:Mail")
    journal: "Room[Journal]" = Room("aios.sdk.journal:Journal")
    branches: "Room[Branches]" = Room("aios.sdk.branches:Branches")
    approvals: "Room[Approvals]" = Room("aios.sdk.approvals:Approvals")
    checkpoints: "Room[Checkpoints]" = Room("aios.sdk.checkpoints:Checkpoints")
    repeatable: "Room[Repeatable]" = Room("aios.sdk.recovery:Repeatable")
    timers: "Room[Timers]" = Room("aios.sdk.timers:Timers")
    sched: "Room[Scheduling]" = Room("aios.sdk.sched:Scheduling")
    memory: "Room[Memory]" = Room("aios.sdk.memory:Memory")
    tools: "Room[Toolbox]" = Room("aios.sdk.toolbox:Toolbox")
    mcp: "Room[McpClient]" = Room("aios.sdk.mcp:McpClient")

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @cached_property
    def contexts(self) -> "Contexts":
        """The contexts of the process: conversations that the kernel keeps."""
        from aios.sdk.contexts import Contexts  # noqa: PLC0415 - as in `Room`

        return Contexts(self)

    # --- models --------------------------------------------------------------------------------------------------

    @overload
    async def chat(
        self, messages: Messages, *, schema: type[T], **options: Unpack[ChatOptions]
    ) -> ChatReply[T]: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        schema: JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply[object]: ...

    async def chat(
        self,
        messages: Messages,
        *,
        schema: type[T] | JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply[T]:
        """Let a model write the next message of a conversation.

        Args:
            messages: A text (one user message), a message, or messages; see `Messages`.
            schema: A type or a JSON Schema that the output must follow; then `.parsed` of the reply is a value of it.
            options: model, temperature and the rest of the sampling, max_tokens, stop, regex, tools, tool_choice,
                logprobs, deadline_s; see `ChatOptions`.

        Raises:
            ContextWindowExceeded: The prompt does not fit into the model's window.
            DeadlineExceeded: `deadline_s` passed.
            EngineUnavailable: No engine runs, or it cannot be reached.
            InvalidCall: An argument is malformed or out of range.
            NotFound: No engine serves `model`.
            ResourceExhausted: The queue of the engine is full.
        """
        call = chat_call(messages, schema, **options)
        return chat_reply(await self.gate.call(call), schema)

    @overload
    def stream_chat(
        self, messages: Messages, *, schema: type[T], **options: Unpack[ChatOptions]
    ) -> "AbstractAsyncContextManager[ChatStream[T]]": ...

    @overload
    def stream_chat(
        self,
        messages: Messages,
        *,
        schema: JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> "AbstractAsyncContextManager[ChatStream[object]]": ...

    def stream_chat(
        self,
        messages: Messages,
        *,
        schema: type[T] | JsonObject | None = None,
        **options: Unpack[ChatOptions],
    ) -> "AbstractAsyncContextManager[ChatStream[T]]":
        """`chat`, piece by piece; leaving the block early cancels the call.

        async with client.stream_chat("Why?") as stream:
            async for text in stream:
                ...
            reply = await stream.reply()
        """
        return self._stream_chat(messages, schema, options)

    async def complete(
        self, prompt: str, *, schema: Schema = None, **options: Unpack[GenerateOptions]
    ) -> CompleteReply:
        """Let a model go on with a text, without a chat template; options and errors are those of `chat`."""
        return complete_reply(await self.gate.call(complete_call(prompt, schema, **options)))

    @asynccontextmanager
    async def stream_complete(
        self, prompt: str, *, schema: Schema = None, **options: Unpack[GenerateOptions]
    ) -> "AsyncIterator[CompleteStream]":
        """`complete`, piece by piece, as in `stream_chat`."""
        async with self.gate.open_call(complete_call(prompt, schema, **options)) as frames:
            yield CompleteStream(frames)

    async def embed(
        self, texts: str | Sequence[str], *, model: str = "", deadline_s: float | None = None
    ) -> Embeddings:
        """Turn texts into vectors of length 1, in `.vectors`.

        Raises:
            ContextWindowExceeded: A text is longer than the window.
            Unsupported: The model has no embeddings.
        """
        listed = (texts,) if isinstance(texts, str) else tuple(texts)
        call = build(Embed, texts=listed, model=model, deadline_s=deadline_s)
        return (await self.gate.call(call)).value

    async def tokenize(self, text: str, *, model: str = "") -> Tokens:
        """Cut a text into the tokens of a model, without its special tokens."""
        return (await self.gate.call(build(Tokenize, text=text, model=model))).value

    async def count_tokens(
        self, messages: Messages, *, tools: Tools = (), model: str = ""
    ) -> TokenCount:
        """Count the tokens of a conversation as the model would see it, template and tools included."""
        return (await self.gate.call(count_tokens_call(messages, tools, model))).value

    @asynccontextmanager
    async def context(
        self,
        *,
        system: str = "",
        messages: Messages = (),
        tools: Tools = (),
        model: str = "",
        window: "str | WindowPolicy | None" = None,
    ) -> "AsyncIterator[Context]":
        """A conversation that the kernel keeps, for the length of the block; see `Contexts.open` for the arguments.

        async with client.context(system="You are brief.", window="drop-oldest") as context:
            reply = await context.chat("Name a sea.")
        """
        async with await self.contexts.open(
            system=system, messages=messages, tools=tools, model=model, window=window
        ) as context:
            yield context

    # --- processes -----------------------------------------------------------------------------------------------

    async def spawn(
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
        """Start a program folder (with `agent.toml`) as a child process; returns when it runs.

        Args:
            program: The folder; relative to the caller's working directory.
            args: Arguments of its `main`.
            name: Its name; the program's own when None.
            nice: -20 (first) to 19 (last); 0 takes the program's own. At least the caller's, whatever is asked for.
            cwd: Its working directory; the caller's when None.
            env: Added to its environment.
            budget: What it and all that it starts may spend; what its manifest says when None.
            read: Folders and files that it may read beside its own and its working directory.
            write: The same, to change. A program's child has at most what the program has, and all of that when neither is given.
            restart: Whether it is started again when it or the kernel ended too early; what its manifest says when None.
            block_bytes: The size of its memory block for interactions; what its manifest or the configuration says when None.

        Raises:
            InvalidCall: The manifest is malformed.
            NotFound: No such program or working directory.
            ProgramFailed: It could not be started.
            ResourceExhausted: The caller, or one above it, has as many programs alive as one may have.
        """
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
        return (await self.gate.call(call)).value

    async def wait(self, pid: int | None = None, *, deadline_s: float | None = None) -> Exited:
        """Wait until a process has ended; without `pid`, until any child that was not waited for has.

        Raises:
            DeadlineExceeded: `deadline_s` seconds passed.
            NotFound: No such process, or no children.
        """
        return (await self.gate.call(build(Wait, pid=pid, deadline_s=deadline_s))).value

    async def kill(self, pid: int, reason: str = "") -> tuple[Pid, ...]:
        """End a process and its descendants; returns whom it reached. Nothing they asked for takes effect after that."""
        return (await self.gate.call(build(Kill, pid=pid, reason=reason))).value.pids

    async def signal(self, pid: int, signal: SignalName) -> tuple[Pid, ...]:
        """Send TERM, KILL, STOP, CONT or USR1; returns whom it reached. See the call `signal` for what each does."""
        return (await self.gate.call(build(SendSignal, pid=pid, signal=signal))).value.pids

    async def stop(self, pid: int) -> tuple[Pid, ...]:
        """Hold a process and its descendants until `cont`; returns whom it reached."""
        return (await self.gate.call(build(Stop, pid=pid))).value.pids

    async def cont(self, pid: int) -> tuple[Pid, ...]:
        """Let a stopped process and its descendants go on; returns whom it reached."""
        return (await self.gate.call(build(Cont, pid=pid))).value.pids

    async def ps(self, *, include_ended: bool = False) -> tuple[ProcessInfo, ...]:
        """The processes that the caller may see, by pid; also ended ones that are remembered, if asked, their longest results cut (`wait` gives each whole)."""
        return (await self.gate.call(build(Ps, all=include_ended))).value.processes

    async def getpid(self) -> Self:
        """Who the caller is: `.pid`, `.ppid`, `.name`."""
        return (await self.gate.call(GetPid())).value

    async def exit(self, status: int = 0, result: str = "") -> None:
        """End the calling process; `result` is what `wait` hands to others, at most 1 MiB of text."""
        await self.gate.call(build(ExitSelf, status=status, result=result))

    async def nice(self, pid: int, nice: int) -> int:
        """Set how willing a process is to wait, -20 (first) to 19 (last); returns the value now in force.

        Raises:
            AccessDenied: Only the owner may make a process less willing.
        """
        return (await self.gate.call(build(Nice, pid=pid, nice=nice))).value.nice

    async def budget(self, pid: int) -> BudgetInfo:
        """What a process and all that it starts may spend, have spent, and hold."""
        return (await self.gate.call(build(Budget, pid=pid))).value

    async def set_budget(
        self, pid: int, limits: Limits, *, on_breach: OnBreach = "pause"
    ) -> BudgetInfo:
        """Set the limits of a descendant and all that it starts; what `limits` leaves out is lifted.

        Args:
            pid: The process.
            limits: `aios.Limits(completion_tokens=10_000)` and the like.
            on_breach: `pause` stops the process when a call does not fit, `fail` lets the call fail.

        Raises:
            AccessDenied: It is the caller itself, or not its descendant.
        """
        call = build(SetBudget, pid=pid, limits=limits, on_breach=on_breach)
        return (await self.gate.call(call)).value

    # --- logs and the kernel -------------------------------------------------------------------------------------

    async def log(self, text: str) -> None:
        """Write into the caller's log; each line of the text becomes a line there."""
        await self.gate.call(build(Log, text=text))

    @asynccontextmanager
    async def logs(
        self, pid: int, *, follow: bool = False, tail: int | None = None
    ) -> "AsyncIterator[LogStream]":
        """Read the log of a process; `follow` goes on until it ends, `tail` starts with the last lines.

        async with client.logs(pid, follow=True) as lines:
            async for line in lines:
                ...
        """
        async with self.gate.open_call(build(Logs, pid=pid, follow=follow, tail=tail)) as frames:
            yield LogStream(frames)

    async def info(self) -> KernelInfo:
        """What runs here: version, addresses, engines, counts."""
        return (await self.gate.call(Info())).value

    async def pages(self) -> tuple[PageStoreInfo, ...]:
        """What the page stores hold, one for each model that pages."""
        return (await self.gate.call(Pages())).value.stores

    async def admit(self, name: str = "guest") -> Guest:
        """Make a guest process, a third-party client, and its token, which is shown this once."""
        return (await self.gate.call(build(Admit, name=name))).value

    async def shutdown(self) -> None:
        """Ask the kernel to drain and end; only its owner may."""
        await self.gate.call(Shutdown())

    @asynccontextmanager
    async def _stream_chat(
        self, messages: Messages, schema: type[T] | JsonObject | None, options: ChatOptions
    ) -> "AsyncIterator[ChatStream[T]]":
        async with self.gate.open_call(chat_call(messages, schema, **options)) as frames:
            yield ChatStream(frames, schema)


class ChatStream(Generic[T]):
    """The pieces of a reply as they come. Iterate once; a slow reader gets larger pieces."""

    def __init__(self, frames: Frames[ChatAnswer], schema: object = None) -> None:
        self._frames = frames
        self._pieces = frames.__aiter__()
        self._schema = schema

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await _next_text(self._pieces)

    async def reply(self) -> ChatReply[T]:
        """The whole reply; waits for its end and skips pieces that were not read."""
        return chat_reply(await self._frames.result(), self._schema)


class CompleteStream:
    """The pieces of a completion as they come."""

    def __init__(self, frames: Frames[CompleteAnswer]) -> None:
        self._frames = frames
        self._pieces = frames.__aiter__()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await _next_text(self._pieces)

    async def reply(self) -> CompleteReply:
        """The whole of it; waits for its end and skips pieces that were not read."""
        return complete_reply(await self._frames.result())


class LogStream:
    """Lines of a log as they come. `n_missed` lines were dropped so far because the reader was too slow."""

    def __init__(self, frames: Frames[LogEnd]) -> None:
        self.n_missed = 0
        self._frames = frames
        self._lines = frames.__aiter__()

    def __aiter__(self) -> AsyncIterator[LogLine]:
        return self

    async def __anext__(self) -> LogLine:
        while True:
            frame = await self._lines.__anext__()
            if isinstance(frame, Line):
                self.n_missed += frame.n_missed
                return frame.line

    async def end(self) -> LogEnd:
        """How many lines there were, and how many had been dropped before; waits for the end."""
        return (await self._frames.result()).value


@asynccontextmanager
async def connect(url: str | None = None, token: str | None = None) -> AsyncIterator[Client]:
    """A client of a running kernel, for the length of the block.

    Args:
        url: `unix:///path/kernel.sock` or `http://127.0.0.1:8411`; AIOS_URL when None, else the kernel that serves
            AIOS_HOME.
        token: Who one is; AIOS_TOKEN when None, else the owner's token in AIOS_HOME.

    Raises:
        KernelUnreachable: None runs, or it does not answer.
        Unauthenticated: The token is not valid.
    """
    address = find_address(url, token)
    if address.unix_path is not None:
        from aios.sdk.socket import UnixGate  # noqa: PLC0415 - start-up time: anyio, only for this way

        async with UnixGate.connect(address.unix_path, address.token) as gate:
            yield Client(gate)
    else:
        from aios.sdk.http import HttpGate  # noqa: PLC0415 - start-up time: httpx takes 200 ms

        async with HttpGate(address.url, address.token) as http_gate:
            yield Client(http_gate)


async def _next_text(pieces: AsyncIterator[object]) -> str:
    while True:
        frame = await pieces.__anext__()
        if isinstance(frame, Token) and frame.text:
            return frame.text
