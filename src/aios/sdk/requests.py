"""Builds system calls from what a program has at hand; both clients are thin shells around it. Pure.

Everything is checked here, so that a mistake shows where it was made, whatever the gate.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypedDict, TypeVar, Unpack

import msgspec

from aios.abi.budget import Limits
from aios.abi.call import Answer, Call
from aios.abi.calls import Chat, Complete, CountTokens, Spawn
from aios.abi.recovery import Restart
from aios.abi.types import (
    Constraint,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Regex,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from aios.errors import InvalidCall
from aios.malformed import named
from aios.readers import convert
from aios.sdk.schemas import name_of, schema_of

C = TypeVar("C", bound=Call[Answer])
S = TypeVar("S")

MODES = frozenset({"auto", "none", "required"})
ARGUMENTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "approval_answer": {"id": "number"},
        "approval_revoke": {"id": "number"},
        "deadletterdrop": {"id": "letter_id"},
        "deadlettersend": {"id": "letter_id"},
        "file_unlink": {"id": "link_id"},
        "forget": {"id": "note"},
        "link": {"id": "note"},
        "memory_get": {"id": "note"},
        "memory_tag": {"id": "note"},
        "ps": {"all": "include_ended"},
        "timer_remove": {"id": "timer_id"},
        "timer_run": {"id": "timer_id"},
        "update": {"id": "note"},
    }
)
"""What the methods of a client call a field of a call, where that is another name."""
SAMPLING_OPTIONS = frozenset(Sampling.__struct_fields__)


class HasSpec(Protocol):
    """Anything that stands for a tool, such as a function under `@tool`."""

    @property
    def spec(self) -> ToolSpec:
        """What a model is told about the tool."""
        ...


Messages = str | Message | Mapping[str, object] | Sequence[Message | Mapping[str, object]]
"""One user message as plain text, or messages; a mapping has the shape of the OpenAI API."""

Tools = Sequence[ToolSpec | HasSpec]
Schema = JsonObject | type | None
"""A JSON Schema, or a type that has one."""


class GenerateOptions(TypedDict, total=False):
    """Options of every generation; what is left out keeps the kernel's default.

    `sampling` is the whole of how tokens are chosen (see `aios.Sampling`); the single fields change it in that point.
    `max_tokens` bounds the output, `deadline_s` the whole call in seconds, waits included. `regex` forces the output to
    match. `logprobs` asks for the log-probability of each token, `top_logprobs` for that many alternatives as well.
    """

    model: str
    sampling: Sampling
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_window_tokens: int
    logit_bias: dict[int, float]
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str]
    regex: str
    logprobs: bool
    top_logprobs: int
    deadline_s: float | None


class ChatOptions(GenerateOptions, total=False):
    """Options of a chat: those of every generation, and tools.

    `tool_choice` is `auto`, `none`, `required`, or the name of the tool that must be called. `context` is the id of a context
    that the messages go on with; `Context.chat` sets it.
    """

    tools: Tools
    tool_choice: str | ToolChoice
    context: int | None


def build(cls: type[C], **fields: object) -> C:
    """A call of a class, checked.

    Raises:
        InvalidCall: A field is malformed, out of range or unknown.
    """
    for name, value in fields.items():
        if isinstance(value, msgspec.Struct):
            fields[name] = checked(value, f"{name}.")
    try:
        return convert(fields, cls)
    except msgspec.ValidationError as error:
        names = ARGUMENTS.get(str(cls.__struct_config__.tag), {})
        raise InvalidCall(
            named(error, names), hint=f"see `help('{cls.__module__}.{cls.__name__}')`"
        ) from error


def listed(given: Iterable[object]) -> object:
    """Several things as `build` takes them. One text is left as it is, so that it is refused: its letters are not meant."""
    return given if isinstance(given, str) else tuple(given)


def checked(part: S, where: str = "") -> S:
    """A part of a call, such as an edit or limits, checked as the call is: msgspec takes what is a `Struct` already as it is.

    Raises:
        InvalidCall: A field is malformed or out of range; `where` stands before its name.
    """
    if not isinstance(part, msgspec.Struct):
        return part  # refused with the whole call
    cls = type(part)
    try:
        return convert(msgspec.structs.asdict(part), cls)
    except msgspec.ValidationError as error:
        raise InvalidCall(
            named(error).replace("`", f"`{where}", 1),
            hint=f"see `help('{cls.__module__}.{cls.__name__}')`",
        ) from error


def chat_call(messages: Messages, schema: Schema = None, **options: Unpack[ChatOptions]) -> Chat:
    """The call that lets a model write the next message."""
    fields: dict[str, object] = dict(options)
    tools = tuple(spec_of(tool) for tool in options.get("tools", ()))
    fields["messages"] = messages_of(messages)
    fields["tools"] = tools
    has_others = not tools and options.get("context") is not None
    fields["tool_choice"] = _choice(
        options.get("tool_choice", "auto"), None if has_others else tools
    )
    return _generation(Chat, schema, fields)


def complete_call(
    prompt: str, schema: Schema = None, **options: Unpack[GenerateOptions]
) -> Complete:
    """The call that lets a model go on with a text."""
    return _generation(Complete, schema, {**options, "prompt": prompt})


def count_tokens_call(messages: Messages, tools: Tools, model: str) -> CountTokens:
    """The call that counts the tokens of a conversation."""
    specs = tuple(spec_of(tool) for tool in tools)
    return build(CountTokens, messages=messages_of(messages), tools=specs, model=model)


def spawn_call(
    program: str | os.PathLike[str],
    args: tuple[str, ...],
    *,
    name: str | None,
    nice: int,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    budget: Limits | None,
    read: Sequence[str | os.PathLike[str]] | None,
    write: Sequence[str | os.PathLike[str]] | None,
    restart: Restart | None = None,
    block_bytes: int | None = None,
) -> Spawn:
    """The call that starts a program. Paths are the caller's, so they are made absolute here."""
    return build(
        Spawn,
        program=os.path.abspath(program),  # noqa: PTH100 - pathlib takes 5 ms to import in a child
        args=args,
        name=name,
        nice=nice,
        cwd=os.path.abspath(cwd or "."),  # noqa: PTH100 - the same
        env=dict(env or {}),
        budget=budget,
        read=_folders(read),
        write=_folders(write),
        restart=restart,
        block_bytes=block_bytes,
    )


def _folders(given: Sequence[str | os.PathLike[str]] | None) -> object:
    if given is None or isinstance(given, str):  # of `/data`, the first letter is the folder of all
        return given
    return tuple(map(os.path.abspath, given))


def messages_of(given: Messages) -> tuple[Message, ...]:
    """Messages from any of the shapes in which programs hold them.

    Raises:
        InvalidCall: One is malformed; the text says which.
    """
    if isinstance(given, str):
        return (Message(Role.USER, given),)
    if isinstance(given, Message | Mapping):
        given = (given,)
    return tuple(
        item if isinstance(item, Message) else _message(item, i) for i, item in enumerate(given)
    )


class _ForeignFunction(msgspec.Struct):
    name: str
    arguments: str = "{}"


class _ForeignCall(msgspec.Struct):
    function: _ForeignFunction
    id: str = ""


class _ForeignUrl(msgspec.Struct):
    url: str
    detail: str = "auto"


class _ForeignPart(msgspec.Struct):
    """A part of a message's content as the OpenAI API has it."""

    type: str
    text: str = ""
    image_url: _ForeignUrl | None = None


class _ForeignMessage(msgspec.Struct):
    """A message as the OpenAI API has it."""

    role: Role
    content: str | list[_ForeignPart] | None = None
    tool_calls: list[_ForeignCall] | None = None
    tool_call_id: str = ""
    name: str = ""


def _message(given: object, index: int) -> Message:
    try:
        foreign = convert(given, _ForeignMessage)
    except msgspec.ValidationError as error:
        raise InvalidCall(
            f"message {index}: {named(error)}",
            hint="a message is an aios.Message or {role, content}",
        ) from error
    content: str | tuple[TextPart | ImagePart, ...]
    if isinstance(foreign.content, list):
        content = tuple(_part(part, index) for part in foreign.content)
    else:
        content = foreign.content or ""
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in foreign.tool_calls or ()
    )
    return Message(foreign.role, content, calls, foreign.tool_call_id, foreign.name)


def _part(part: _ForeignPart, index: int) -> TextPart | ImagePart:
    if part.type == "text":
        return TextPart(part.text)
    if part.type == "image_url" and part.image_url is not None:
        return ImagePart(part.image_url.url, part.image_url.detail)
    raise InvalidCall(
        f"message {index}: a part of type {part.type!r}", hint="parts are `text` or `image_url`"
    )


def _generation(cls: type[C], schema: Schema, fields: dict[str, object]) -> C:
    fields["sampling"] = _sampling(fields)
    stop = fields.get("stop", ())
    fields["stop"] = (stop,) if isinstance(stop, str) else stop
    fields["constraint"] = _constraint(schema, fields.pop("regex", None))
    return build(cls, **fields)


def _sampling(fields: dict[str, object]) -> Sampling:
    """Take the sampling options out of the fields."""
    changes = {name: fields.pop(name) for name in SAMPLING_OPTIONS & fields.keys()}
    base = fields.pop("sampling", None) or Sampling()
    if not isinstance(base, Sampling):
        raise InvalidCall("`sampling` is not an aios.Sampling", hint="aios.Sampling(temperature=0)")
    try:
        return convert({**msgspec.structs.asdict(base), **changes}, Sampling)
    except msgspec.ValidationError as error:
        raise InvalidCall(named(error), hint="see `help(aios.Sampling)`") from error


def _constraint(schema: Schema, regex: object) -> Constraint | None:
    if schema is not None and regex is not None:
        raise InvalidCall("both `schema` and `regex` are set", hint="choose one")
    if regex is not None:
        try:
            return convert({"type": "regex", "pattern": regex}, Regex)
        except msgspec.ValidationError as error:
            raise InvalidCall(
                named(error, {"pattern": "regex"}), hint="a pattern as text"
            ) from error
    if schema is None:
        return None
    found = dict(schema) if isinstance(schema, dict) else schema_of(schema)
    return JsonSchema(found, name_of(schema))


def spec_of(tool: ToolSpec | HasSpec) -> ToolSpec:
    """What a model is told of a tool."""
    spec = tool if isinstance(tool, ToolSpec) else getattr(tool, "spec", None)
    if not isinstance(spec, ToolSpec):
        raise InvalidCall(
            f"{tool!r} is not a tool", hint="put @aios.tool over the function, or pass a ToolSpec"
        )
    return spec


def _choice(given: str | ToolChoice, tools: tuple[ToolSpec, ...] | None) -> ToolChoice:
    """A choice among some tools; None: among those of a context, which only the kernel knows."""
    choice = given
    if isinstance(choice, str):
        choice = ToolChoice(choice) if choice in MODES else ToolChoice("tool", choice)
    if tools is None or choice.mode != "tool":
        return choice
    if choice.name not in {tool.name for tool in tools}:
        raise InvalidCall(
            f"tool_choice {choice.name!r} is none of the tools",
            hint="name one of `tools`, or use auto, none or required",
        )
    return choice
