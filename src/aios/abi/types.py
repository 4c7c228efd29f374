"""The nouns that cross the line between agents and the kernel: values only, no I/O.

Every value is frozen. Units and counts stand in the names: `_s` seconds, `_tokens` tokens, `n_` a count, `unix_s`
seconds since 1970 UTC.
"""

from enum import Enum
from typing import Annotated, NewType

from msgspec import Meta, Struct

from aios.abi.taint import Taint

MAX_INT = 2**63 - 1
"""What the database and the wire can hold; a number over it is refused where it comes in."""
SomeInt = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]

Pid = NewType("Pid", SomeInt)
"""Process id: positive, unique for the life of a kernel, never given twice."""

ContextId = NewType("ContextId", SomeInt)
"""A context: positive, unique for the life of a kernel, never given twice."""

JsonObject = dict[str, object]
"""A JSON object that the kernel passes on without looking inside (a JSON Schema, say)."""

Name = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*(?!\n)$")
]
ShortText = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
VersionNumber = Annotated[int, Meta(ge=0, le=MAX_INT)]
"""Counts from 1 for each path; 0 stands for none."""


class State(Enum):
    """What a process is doing, as far as the kernel can see."""

    NEW = "new"  # created, its program has not started yet
    READY = "ready"  # a call of it waits for a turn
    RUNNING = "running"  # a call of it holds a turn
    WAITING = (
        "waiting"  # alive, holds nothing scarce: in its own code, or waits for another process
    )
    STOPPED = "stopped"  # held by `stop` until `cont`
    EXITED = "exited"


class Kind(Enum):
    """How a process came to be."""

    INIT = "init"  # process 1: the owner of the kernel; orphans are its children
    PROGRAM = "program"  # an operating-system process that runs a program folder
    TASK = "task"  # an async function inside the embedding program (trusted)
    GUEST = "guest"  # a client that speaks to the server with a token of its own


class Right(Enum):
    """What a system call needs. The names are stable: policies will be written with them."""

    SELF = "process.self"  # ask who one is, end oneself
    SEE = "process.see"  # look at a process: ps, wait, logs
    SIGNAL = "process.signal"  # kill, stop, cont, nice
    SPAWN = "process.spawn"
    ADMIT = "guest.admit"
    MODEL = "model.use"
    CONTEXT = "context.use"
    LOG = "log.write"
    BUDGET = "budget.set"
    SCHED = "scheduler.set"
    TIMER = "timer.set"  # start programs at a time; the owner's alone
    MAIL = "mail.use"
    FILE_READ = "file.read"
    FILE_WRITE = "file.write"
    MOUNT = "file.mount"  # show real folders; the owner's alone
    MEMORY_READ = "memory.read"
    MEMORY_WRITE = "memory.write"
    TOOL_USE = "tool.use"  # list, look at and run tools
    TOOL_OFFER = "tool.offer"  # offer functions of one's own as tools
    TOOL_INSTALL = "tool.install"  # add executables and agents by their manifests
    ASK = "human.ask"  # ask the owner something
    APPROVE = "approval.give"  # see and answer what is asked; the owner's alone
    INFO = "kernel.info"
    SHUTDOWN = "kernel.shutdown"


class Finish(Enum):
    """Why a generation ended. Names follow the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class Usage(Struct, frozen=True):
    """Tokens of one call or of a whole process.

    `prompt_tokens` counts the whole prompt, `cached_tokens` the part of it that was not computed again.
    """

    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    completion_tokens: Count = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


class Exit(Struct, frozen=True):
    """How a process ended: `status` 0 is success; 128 + signal number when it was killed."""

    status: int
    reason: str = ""
    result: str = ""


class ToolCall(Struct, frozen=True):
    """A tool call that a model asks for. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolSpec(Struct, frozen=True):
    """A tool that a model may call; `parameters` is a JSON Schema of one object."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str = ""
    parameters: JsonObject = {}


class TextPart(Struct, frozen=True, tag="text"):
    """A piece of text in a message."""

    text: str


class ImagePart(Struct, frozen=True, tag="image"):
    """An image in a message: an https URL or a `data:` URL. Passed on to engines that see."""

    url: str
    detail: str = "auto"


class Role(Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Message(Struct, frozen=True):
    """One message of a conversation.

    `tool_calls` only on assistant messages; `tool_call_id` only on tool messages, naming the call that it answers.
    """

    role: Role
    content: str | tuple[TextPart | ImagePart, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    def text(self) -> str:
        """The text of the message without its images."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class Sampling(Struct, frozen=True):
    """How the next token is chosen. The defaults leave the model's distribution as it is.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 are off; `repeat_penalty` 1 and the other penalties 0
    are off and look at the last `penalty_window_tokens` tokens. The same seed gives the same tokens, as far as the
    engine's arithmetic is repeatable; None picks a seed.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.8
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 40
    top_p: Annotated[float, Meta(ge=0, le=1)] = 0.95
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, Meta(gt=0, le=100)] = 1.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    penalty_window_tokens: Annotated[int, Meta(ge=0, le=1_000_000)] = 64
    logit_bias: dict[int, Annotated[float, Meta(ge=-100, le=100)]] = {}
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class JsonSchema(Struct, frozen=True, tag="json_schema"):
    """The output must be one JSON value of this schema (2020-12); `{}` allows any JSON value."""

    schema: JsonObject
    name: str = "output"


class Regex(Struct, frozen=True, tag="regex"):
    """The whole output must match this regular expression (Rust `regex` syntax, no look-around)."""

    pattern: Annotated[str, Meta(min_length=1, max_length=65536)]


Constraint = JsonSchema | Regex


class ToolChoice(Struct, frozen=True):
    """Whether tools may, must or must not be called: `mode` is `auto`, `none`, `required` or `tool` (then `name`)."""

    mode: Annotated[str, Meta(pattern="^(auto|none|required|tool)(?!\\n)$")] = "auto"
    name: str = ""


class Alternative(Struct, frozen=True):
    """A token that could have been chosen, with its natural log-probability."""

    token: str
    logprob: float
    token_bytes: bytes = b""


class TokenLogprob(Struct, frozen=True):
    """The chosen token, its natural log-probability under the model, and the likeliest alternatives."""

    token: str
    logprob: float
    token_bytes: bytes = b""
    top: tuple[Alternative, ...] = ()


class PagesHeld(Struct, frozen=True):
    """Where the pages of the last conversation of a process are; `n_pages` of all that it has.

    The rest is in neither place and would be computed again. In which slots pages are besides, only the engine knows.
    """

    n_pages: Count
    n_in_memory: Count
    n_on_disk: Count
    """On disk alone."""
    n_shared: Count
    """Pages that the last conversation of another living process has, too."""


BlockBytes = Annotated[int, Meta(ge=4096, le=1 << 30)]
"""Memory for the interaction records of one process."""


class ProcessInfo(Struct, frozen=True):
    """One row of `ps`."""

    pid: Pid
    ppid: Pid
    name: str
    program: str
    owner: str
    kind: Kind
    state: State
    nice: int
    activity: str
    """The call that is in flight, or empty."""
    started_unix_s: float
    ended_unix_s: float | None
    exit: Exit | None
    n_calls: int
    n_faults: int
    n_preemptions: int
    waited_s: float
    """Seconds its calls waited for turns, the present wait included."""
    ran_s: float
    """Seconds its calls held turns, the present one included."""
    usage: Usage
    os_pid: int | None = None
    place: int | None = None
    """Of its best-placed call: 0 holds a turn, 1 is the next in its queue; None wants no turn."""
    level: int | None = None
    """Of that call, under a policy with levels: 0 is the first."""
    pages: PagesHeld | None = None
    """None: no engine that pages has served it yet."""
    block_bytes: int = 0
    """Of its memory block for interactions, used so far."""
    n_block_faults: int = 0
    """Interactions that it read back and that were no longer in its block."""
    taint: Taint | None = None
    """Data from outside has reached it: what it does that cannot be undone is asked first."""


class EngineState(Enum):
    """How an engine is."""

    LOADING = "loading"  # its first start goes on; its calls wait
    READY = "ready"
    DOWN = "down"  # it broke or could not be started; its calls move or fail


class EngineInfo(Struct, frozen=True):
    """An engine as `info` and `/v1/models` show it."""

    name: str
    kind: str
    model: str
    window_tokens: int
    n_slots: int
    n_running: int
    n_queued: int
    capabilities: tuple[str, ...]
    usage: Usage
    n_prompt_tokens_computed: int
    note: str = ""
    """What a user should know, such as why it is not available."""
    state: EngineState = EngineState.READY
    aliases: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    priority: int = 0
    n_failures: int = 0
    """Times that it could not be started or broke since it last served a call."""


class LogLine(Struct, frozen=True):
    """One line that a process wrote, or that the kernel wrote about it."""

    pid: Pid
    unix_s: float
    stream: str
    """`out`, `err`, `log` (the `log` call) or `kernel`."""
    text: str
    number: int = 0
    """From 0 over the life of the process. After a crash of the kernel the numbers of lines that had not come to disk are given again, to later lines."""


class FileVersion(Struct, frozen=True):
    """One version of a file. `change` numbers all changes of the kernel's files, in their order.

    Versions of one call share `transaction`. `author` is the folder of the process that made it; `owner` for the owner, `outside` for
    another program that changed a real file (then `pid` is 0), `kernel` for the kernel itself. Who wrote a version that an archive
    brought is who wrote it there. `size_bytes` is None when the file was deleted by it. `taint` is where data in it came from
    outside, empty if none did.
    """

    path: str
    version: VersionNumber
    change: Count
    transaction: Count
    pid: Pid
    author: str
    unix_s: float
    message: str
    size_bytes: Count | None
    taint: str = ""
