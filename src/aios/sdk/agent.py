"""An agent: a model that thinks, calls tools and reads their results until its task is done.

    agent = Agent(client, instructions="You are brief.", tools=[search])
    result = await agent.run("What do my notes say about ships?")

This is user space: one agent holds one conversation, and every thought is one system call.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from types import TracebackType

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from aios.abi.mail import Letter
from aios.abi.types import Finish, Message, Role, Sampling, ToolCall, Usage
from aios.errors import AiosError, Conflict, InvalidCall
from aios.sdk.agent_context import Tether
from aios.sdk.agent_log import AgentLog
from aios.sdk.agent_memory import AgentMemory, Preface, prefaced
from aios.sdk.agent_tools import AgentTools
from aios.sdk.client import Client
from aios.sdk.contexts import Context
from aios.sdk.invoke import AnyTool
from aios.sdk.replies import ChatReply
from aios.sdk.requests import ChatOptions
from aios.sdk.tools import ToolOutcome
from aios.sdk.transcript import Transcript, sanitized
from aios.sdk.urgent import attentive

DEFAULT_MAX_TURNS = 8
DEFAULT_MAX_TOKENS = 1024
MAX_PARALLEL_TOOLS = 8
EVENT_BUFFER = 64


class Ending(Enum):
    """Why a run ended."""

    DONE = "done"  # the model answered without calling a tool
    LENGTH = "length"  # its answer was cut at `max_tokens`, or filled the window
    CONTENT_FILTER = "content_filter"  # the endpoint withheld the answer
    MAX_TURNS = "max_turns"  # it still wanted tools when its turns were used up
    MAX_TOTAL_TOKENS = "max_total_tokens"  # the token budget is used up


class AgentResult(Struct, frozen=True):
    """What a run brought. `finish` says whether it was cut short; `messages` are those of this run.

    With a memory, `recalled` are the notes that stood in front of the task, `recent` the records that did, and `recorded` is the note
    of this exchange. `logged` are the records of this run; `n_unlogged` more could not be logged.
    """

    text: str
    messages: tuple[Message, ...]
    usage: Usage
    n_turns: int
    finish: Ending
    recalled: tuple[int, ...] = ()
    recorded: int | None = None
    recent: tuple[int, ...] = ()
    logged: tuple[int, ...] = ()
    n_unlogged: int = 0


class TextPiece(Struct, frozen=True):
    """The next piece of what the model says."""

    text: str


class ToolStarted(Struct, frozen=True):
    """A tool begins to run."""

    call: ToolCall


class ToolEnded(Struct, frozen=True):
    """A tool has ended, or could not be run."""

    call: ToolCall
    outcome: ToolOutcome


class TurnEnded(Struct, frozen=True):
    """The model has spoken; its tool calls run next."""

    n_turns: int
    reply: ChatReply[object]


class Ended(Struct, frozen=True):
    """The run is over; always the last event."""

    result: AgentResult


Event = TextPiece | ToolStarted | ToolEnded | TurnEnded | Ended
Emit = Callable[[Event], Awaitable[None]]


class Agent:
    """A model with instructions, tools and a conversation that is kept from run to run.

    Args:
        client: Whose system calls it makes.
        instructions: The system message.
        tools: Functions under `@tool`, which run in this program, and names of tools of the kernel (`"calculator"`).
        model: Empty for the kernel's default.
        max_turns: Thoughts in one run.
        max_tokens: Output of one thought; None may fill the window.
        max_total_tokens: Prompt and output of all thoughts of one run. It is checked before each thought, which may
            overshoot it by its own prompt.
        sampling: How tokens are chosen.
        name: For its errors.
        context: Where its conversation is kept; nobody else may write there. Then each thought sends only what is new. Without
            one the agent itself holds the conversation, and sends all of it.
        memory: What it recalls before each run, logs during it and keeps after it; without one it does nothing of that.
        hears_urgent: Whether urgent letters to its process are taken out of the mailbox and told to the model before its next
            thought.
    """

    def __init__(
        self,
        client: Client,
        *,
        instructions: str = "",
        tools: Sequence[AnyTool | str] = (),
        model: str = "",
        max_turns: int = DEFAULT_MAX_TURNS,
        max_tokens: int | None = DEFAULT_MAX_TOKENS,
        max_total_tokens: int | None = None,
        sampling: Sampling = Sampling(),
        name: str = "agent",
        context: Context | None = None,
        memory: AgentMemory | None = None,
        hears_urgent: bool = True,
    ) -> None:
        if max_turns < 1 or (max_total_tokens is not None and max_total_tokens < 1):
            raise InvalidCall("a budget below 1", hint="max_turns and max_total_tokens are >= 1")
        self.letters: list[Letter] = []
        """Urgent ones that the model was not told of yet."""
        self.client = attentive(client, self._hear) if hears_urgent else client
        self.name = name
        self.max_turns = max_turns
        self.max_tokens = max_tokens
        self.max_total_tokens = max_total_tokens
        self.tools = AgentTools(tools)
        self.transcript = Transcript(instructions)
        self.is_running = False
        self.memory = memory
        self.model = model
        self.tether = Tether(context) if context is not None else None
        self._options: ChatOptions = {"model": model, "sampling": sampling}
        if context is not None:
            self._options["context"] = context.id

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far. Every tool call in it has its result, whatever was cancelled or failed.

        With a context these are the messages of this agent; the context may hold earlier ones, and less than all of these.
        """
        return self.transcript.messages

    @property
    def is_new(self) -> bool:
        """Whether its conversation is empty."""
        is_empty = all(each.role is Role.SYSTEM for each in self.messages)
        return is_empty and (self.tether is None or self.tether.is_empty)

    async def run(self, task: str | Message) -> AgentResult:
        """Work on a task until the model answers without calling a tool, or a budget is used up.

        When it raises or is cancelled, the turns that were completed stay in `messages`; a task that no turn has answered
        does not.

        Raises:
            AiosError: A system call failed; see `Client.chat`. Failures of tools are told to the model instead.
            Conflict: The agent is already running.
        """
        return await _Run(self, _ignore, is_streaming=False).run(task)

    def stream(self, task: str | Message) -> "AgentStream":
        """`run`, event by event; leaving the block early cancels the run.

        async with agent.stream("...") as events:
            async for event in events:
                ...
        """
        return AgentStream(self, task)

    async def _hear(self, letter: Letter) -> None:
        self.letters.append(letter)

    def options(self, max_tokens: int | None) -> ChatOptions:
        """The options of its next thought."""
        options: ChatOptions = {**self._options, "max_tokens": max_tokens}
        if self.tools.specs:
            options["tools"] = self.tools.specs
        return options


class AgentStream:
    """The events of one run, in order; enter it, then iterate once. The last one is `Ended`."""

    def __init__(self, agent: Agent, task: str | Message) -> None:
        self._agent = agent
        self._task = task
        self._error: AiosError | None = None
        self._group = anyio.create_task_group()
        self._receive: MemoryObjectReceiveStream[Event] | None = None
        """None outside of the block."""

    async def __aenter__(self) -> "AgentStream":
        await self._group.__aenter__()
        send, self._receive = anyio.create_memory_object_stream[Event](EVENT_BUFFER)
        self._group.start_soon(self._drive, send)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        try:
            return await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if error is not None and group.exceptions == (error,):
                return False  # the block's own error leaves it bare
            raise
        finally:
            if self._receive is not None:
                self._receive.close()
                self._receive = None

    def __aiter__(self) -> "AgentStream":
        return self

    async def __anext__(self) -> Event:
        if (
            self._receive is None
        ):  # nobody drives the run: the wait for its events would have no end
            raise InvalidCall(
                "an agent's events come only inside of the stream's block",
                hint="async with agent.stream(...) as events: async for event in events: ...",
            )
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            pass  # raised outside of this block, so that an error keeps its own cause
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def _drive(self, send: MemoryObjectSendStream[Event]) -> None:
        with send:
            try:
                await _Run(self._agent, send.send, is_streaming=True).run(self._task)
            except AiosError as error:
                self._error = error


class _Run:
    """One run of an agent."""

    def __init__(self, agent: Agent, emit: Emit, *, is_streaming: bool) -> None:
        self._agent = agent
        self._emit = emit
        self._is_streaming = is_streaming
        self._usage = Usage()
        self._n_turns = 0
        self._log = AgentLog(None, 0)
        self._parallel = anyio.Semaphore(MAX_PARALLEL_TOOLS)

    async def run(self, task: str | Message) -> AgentResult:
        """Claim the agent, work, and give it back."""
        agent = self._agent
        if agent.is_running:
            raise Conflict(
                f"agent {agent.name} is already running a task",
                hint="an agent holds one conversation: await the first run, or make a second agent",
            )
        agent.is_running = True
        message = task if isinstance(task, Message) else Message(Role.USER, task)
        try:
            await agent.tools.resolve(agent.client)
            if agent.tether is not None:
                await agent.tether.begin(agent.transcript.messages)
            preface = await self._remember(message)
            reply, finish = await self._turns()
        finally:
            agent.transcript.give_up()
            try:
                await self._log.log(agent.messages)  # also letters that no turn has answered
            finally:
                agent.is_running = False
        recorded = None
        if agent.memory is not None and finish is Ending.DONE:
            recorded = await agent.memory.record(message, reply.text)
        result = AgentResult(
            reply.text,
            agent.transcript.news,
            self._usage,
            self._n_turns,
            finish,
            recalled=preface.notes,
            recorded=recorded,
            recent=preface.records,
            logged=tuple(self._log.records),
            n_unlogged=self._log.count_unlogged(agent.messages),
        )
        await self._emit(Ended(result))
        return result

    async def _remember(self, task: Message) -> Preface:
        """Take on a task, with what is remembered in front of it."""
        agent, preface = self._agent, Preface()
        if agent.memory is not None:
            self._log = agent.memory.begin_log(len(agent.messages))
            preface = await agent.memory.recall(
                agent.client, task, model=agent.model, is_first=agent.is_new
            )
        told = prefaced(task, preface)
        self._log.begin(told, task)
        agent.transcript.begin(told)
        return preface

    async def _settle(self, message: Message, outcomes: Sequence[ToolOutcome | None]) -> None:
        self._agent.transcript.commit(message, outcomes)
        await self._log.log(self._agent.messages)

    async def _turns(self) -> tuple[ChatReply[object], Ending]:
        """Think and act in turns; returns the last thought and why it was the last."""
        agent = self._agent
        while True:
            n_left = self._tokens_left()
            is_tight = n_left is not None and n_left < (agent.max_tokens or n_left + 1)
            reply = await self._think(n_left if is_tight else agent.max_tokens)
            self._n_turns += 1
            self._usage += reply.usage
            await self._emit(TurnEnded(self._n_turns, reply))
            message = sanitized(reply.message)
            if not message.tool_calls:
                await self._settle(message, ())
                if agent.letters and self._budget_used_up() is None:
                    continue  # what came during the last thought is not left unheard
                return reply, _ending(reply.finish, is_tight=is_tight)
            over = self._budget_used_up()
            if over is not None:
                refusal = ToolOutcome(f"error: not run: {over.value} is used up", is_error=True)
                await self._settle(message, [refusal] * len(message.tool_calls))
                if agent.tether is not None:
                    await agent.tether.deliver(agent.transcript.messages)
                return reply, over
            await self._act(message, written=reply.tool_calls)

    async def _think(self, max_tokens: int | None) -> ChatReply[object]:
        agent = self._agent
        agent.transcript.tell(_told(agent.letters))
        agent.letters.clear()
        prompt = agent.transcript.prompt
        if agent.tether is None:
            return await self._speak(prompt, agent.options(max_tokens))
        reply = await self._speak(agent.tether.news(prompt), agent.options(max_tokens))
        agent.tether.note_answered(prompt)
        return reply

    async def _speak(
        self, messages: tuple[Message, ...], options: ChatOptions
    ) -> ChatReply[object]:
        client = self._agent.client
        if not self._is_streaming:
            return await client.chat(messages, **options)
        async with client.stream_chat(messages, **options) as stream:
            async for text in stream:
                await self._emit(TextPiece(text))
            return await stream.reply()

    async def _act(self, message: Message, *, written: tuple[ToolCall, ...]) -> None:
        """Run the calls of a message side by side and settle the turn, also when cut short.

        Args:
            message: The message as it will stand in the transcript.
            written: Its calls with the arguments as the model wrote them.
        """
        outcomes: list[ToolOutcome | None] = [None] * len(written)
        errors: list[AiosError] = []

        async def use(index: int, call: ToolCall) -> None:
            try:
                await self._use(call, written[index].arguments, outcomes, index)
            except AiosError as error:
                errors.append(error)
                group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                for i, call in enumerate(message.tool_calls):
                    group.start_soon(use, i, call)
        finally:
            await self._settle(message, outcomes)
        if errors:
            raise errors[0]

    async def _use(
        self, call: ToolCall, arguments: str, outcomes: list[ToolOutcome | None], index: int
    ) -> None:
        async with self._parallel:
            await self._emit(ToolStarted(call))
            outcome = await self._agent.tools.use(self._agent.client, call, arguments)
            outcomes[index] = outcome
            await self._emit(ToolEnded(call, outcome))

    def _tokens_left(self) -> int | None:
        limit = self._agent.max_total_tokens
        return None if limit is None else limit - _total(self._usage)

    def _budget_used_up(self) -> Ending | None:
        n_left = self._tokens_left()
        if n_left is not None and n_left < 1:
            return Ending.MAX_TOTAL_TOKENS
        return Ending.MAX_TURNS if self._n_turns >= self._agent.max_turns else None


async def _ignore(_: Event) -> None:
    """Nobody listens."""


def _told(letters: Sequence[Letter]) -> list[Message]:
    """What the model is told of urgent letters."""
    return [
        Message(Role.USER, f"Urgent letter from {each.sender_name} ({each.sender}): {each.body}")
        for each in letters
    ]


def _ending(finish: Finish, *, is_tight: bool) -> Ending:
    match finish:
        case Finish.LENGTH:
            return Ending.MAX_TOTAL_TOKENS if is_tight else Ending.LENGTH
        case Finish.CONTENT_FILTER:
            return Ending.CONTENT_FILTER
        case _:
            return Ending.DONE


def _total(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
