"""The system calls about processes, models, logs and the kernel itself: a frozen class each, with the class of its answer beside it.

Those of files, memory, mail and so on have modules of their own; `every.py` names them all.
"""

from typing import Annotated, Literal

from msgspec import Meta

from aios.abi.call import Answer, Call, Done, MaxTokens, ModelName, Stops
from aios.abi.cuts import Cut
from aios.abi.spawn import Spawn as Spawn
from aios.abi.spawn import Spawned as Spawned
from aios.abi.types import (
    Constraint,
    ContextId,
    Count,
    EngineInfo,
    Exit,
    Finish,
    Message,
    Name,
    Pid,
    ProcessInfo,
    Sampling,
    ShortText,
    TokenLogprob,
    ToolChoice,
    ToolSpec,
    Usage,
)

# --- processes ---------------------------------------------------------------------------------------------------


class Guest(Answer, frozen=True):
    """A guest process and the token by which it is known. The token is shown this once."""

    pid: Pid
    name: str
    token: str


class Admit(Call[Guest], frozen=True):
    """Make a guest process: a third-party client that has a token of its own."""

    name: Name = "guest"


class Exited(Answer, frozen=True):
    """A process that has ended."""

    pid: Pid
    exit: Exit


class Wait(Call[Exited], frozen=True):
    """Wait until a process has ended; without `pid`, until any child that was not waited for has.

    Raises:
        KernelStopping: The kernel ends, and the next one goes on with that process.
    """

    pid: Pid | None = None


class Signalled(Answer, frozen=True):
    """The processes that a signal reached: the one that was named, then its descendants."""

    pids: tuple[Pid, ...]


class Kill(Call[Signalled], frozen=True):
    """End a process and all its descendants. When it returns, nothing they asked for takes effect any more."""

    pid: Pid
    reason: ShortText = ""


class Stop(Call[Signalled], frozen=True):
    """Hold a process and all its descendants. When it returns, nothing they ask takes effect until `cont`."""

    pid: Pid


class Cont(Call[Signalled], frozen=True):
    """Let a stopped process and its descendants go on where they were."""

    pid: Pid


SignalName = Literal["TERM", "KILL", "STOP", "CONT", "USR1"]


class SendSignal(Call[Signalled], frozen=True, tag="signal"):
    """Send a signal: KILL, STOP and CONT are the calls `kill`, `stop` and `cont`.

    TERM asks a process and its descendants to end: programs get SIGTERM and are not started again, others a letter on the
    topic `signal` with the text `TERM`. USR1 is such a letter to the process alone. A signal that its receiver has not read yet is not sent twice.
    """

    pid: Pid
    signal: SignalName


class Processes(Answer, frozen=True):
    """Rows of the process table, by pid."""

    processes: tuple[ProcessInfo, ...]


class Ps(Call[Processes], frozen=True):
    """List the processes that the caller may see; `all` includes the ended ones that are still remembered.

    The results in one answer are of 1 MiB of text together: longer ones are cut, each to the same length. `wait` gives each whole.
    """

    all: bool = False


class Self(Answer, frozen=True):
    """Who the caller is."""

    pid: Pid
    ppid: Pid
    name: str


class GetPid(Call[Self], frozen=True):
    """Ask who one is."""


class ExitSelf(Call[Done], frozen=True, tag="exit"):
    """End the calling process with a status and a result, of at most 1 MiB of text.

    It is kept with the process for `wait`; those of all ended processes are of 64 MiB at most, or the oldest long ones are forgotten.
    """

    status: Annotated[int, Meta(ge=0, le=255)] = 0
    result: Annotated[str, Meta(max_length=1 << 20)] = ""


class Niced(Answer, frozen=True):
    """The nice value that is now in force."""

    pid: Pid
    nice: int


class Nice(Call[Niced], frozen=True):
    """Set how willing a process is to wait: -20 (first) to 19 (last)."""

    pid: Pid
    nice: Annotated[int, Meta(ge=-20, le=19)]


# --- models ------------------------------------------------------------------------------------------------------


class ChatAnswer(Answer, frozen=True):
    """One assistant message. `logprobs` holds a row a token when they were asked for, `cuts` what left the window of a context before."""

    message: Message
    finish: Finish
    usage: Usage
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()
    cuts: tuple[Cut, ...] = ()


class Chat(Call[ChatAnswer], frozen=True):
    """Let a model write the next message of a conversation.

    An empty `model` is the kernel's default. Without `max_tokens` the generation may fill the window. `logprobs` asks
    for the chosen token's log-probability, `top_logprobs` for that many alternatives beside it. Without `may_move` only
    the engines that `model` names serve the call; else, as long as nothing of the answer was handed out, it moves to the
    next of the stated fallback order when one fails.

    With `context` the messages are added to those of a context, which the model sees first; the answer is added when it is
    there. A call that fails or is cancelled leaves the context as it was. `model` and `tools` are the context's unless given.

    Raises:
        AccessDenied: The context belongs to a process that is neither the caller nor a descendant of it.
        Conflict: Another call writes in the context.
        ContextWindowExceeded: The prompt does not fit into the model's window.
        InvalidCall: The messages do not follow on those of the context.
        NotFound: No engine serves `model`, or there is no such context.
        ResourceExhausted: The queue of the engine is full.
    """

    messages: Annotated[tuple[Message, ...], Meta(max_length=100_000)]
    model: ModelName = ""
    sampling: Sampling = Sampling()
    max_tokens: MaxTokens | None = None
    stop: Stops = ()
    tools: Annotated[tuple[ToolSpec, ...], Meta(max_length=1024)] = ()
    tool_choice: ToolChoice = ToolChoice()
    constraint: Constraint | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] = 0
    may_move: bool = True
    context: ContextId | None = None

    def __post_init__(self) -> None:
        if not self.messages and self.context is None:
            raise ValueError("Expected `messages` of length >= 1, or a `context`")


class CompleteAnswer(Answer, frozen=True):
    """The text that follows a prompt."""

    text: str
    finish: Finish
    usage: Usage
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Complete(Call[CompleteAnswer], frozen=True):
    """Let a model go on with a text, without a chat template. The fields are those of `Chat`."""

    prompt: Annotated[str, Meta(max_length=1 << 26)]
    model: ModelName = ""
    sampling: Sampling = Sampling()
    max_tokens: MaxTokens | None = None
    stop: Stops = ()
    constraint: Constraint | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] = 0
    may_move: bool = True


class Embeddings(Answer, frozen=True):
    """A vector for each text, of length 1 in the Euclidean norm."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    model: str


class Embed(Call[Embeddings], frozen=True):
    """Turn texts into vectors."""

    texts: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2048)]
    model: ModelName = ""


class Tokens(Answer, frozen=True):
    """The ids of the tokens of a text."""

    tokens: tuple[int, ...]
    model: str


class Tokenize(Call[Tokens], frozen=True):
    """Cut a text into the tokens of a model, without its special tokens."""

    text: Annotated[str, Meta(max_length=1 << 26)]
    model: ModelName = ""


class TokenCount(Answer, frozen=True):
    """How many tokens a conversation takes as a prompt, and how many the window holds."""

    n_tokens: int
    window_tokens: int
    model: str


class CountTokens(Call[TokenCount], frozen=True, tag="count_tokens"):
    """Count the tokens of a conversation as the model would see it, template and tools included."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=100_000)]
    tools: Annotated[tuple[ToolSpec, ...], Meta(max_length=1024)] = ()
    model: ModelName = ""


# --- logs and the kernel itself -----------------------------------------------------------------------------------


class Log(Call[Done], frozen=True):
    """Write into the caller's log; each line of the text becomes a line there."""

    text: Annotated[str, Meta(max_length=1 << 16)]


class LogEnd(Answer, frozen=True):
    """The log was read. `n_dropped` lines had been dropped before the first one because the log is bounded."""

    n_lines: int
    n_dropped: int


class Logs(Call[LogEnd], frozen=True):
    """Read the log of a process: its lines come as `LogLine` frames. `follow` goes on until the process ends."""

    pid: Pid
    follow: bool = False
    tail: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None


class KernelInfo(Answer, frozen=True):
    """What runs here."""

    version: str
    os_pid: int
    home: str
    started_unix_s: float
    uptime_s: float
    n_processes: Count
    n_calls: Count
    n_in_flight: Count
    n_journal_records: Count
    engines: tuple[EngineInfo, ...]
    urls: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    embedded: bool = False
    """True when the kernel lives inside an `aios run` or `aios chat` and ends with it."""


class Info(Call[KernelInfo], frozen=True):
    """Ask about the kernel and its engines."""


class Shutdown(Call[Done], frozen=True):
    """Ask the kernel to drain and end, as SIGTERM does. Only its owner may."""
