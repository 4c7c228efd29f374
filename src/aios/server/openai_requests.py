"""From the body of an OpenAI request to a system call. Pure.

Sampling follows OpenAI where it is not said: temperature 1, nothing cut off. So the same request means the same here and
there; agents that use the native calls get the kernel's own defaults.
"""

from typing import TypeVar, assert_never

import msgspec

from aios.abi.calls import Chat, Complete, Embed
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
from aios.errors import InvalidCall, Unsupported
from aios.malformed import told
from aios.readers import from_json
from aios.server.openai_types import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    FunctionTool,
    ImageContent,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedToolChoice,
    RefusalContent,
    SamplingFields,
    TextContent,
    TextFormat,
)

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default for text completions."""
_MAX_SEED = 2**63 - 1
_HINTS = {
    "n": "one choice a request; send several requests instead",
    "best_of": "one choice a request; send several requests instead",
    "prompt": "one text a request; send several requests instead",
}

T = TypeVar("T")


def decode(body: bytes, kind: type[T]) -> T:
    """Read the body of a request.

    Raises:
        InvalidCall: A field is missing, of the wrong type or out of range; the message names it.
    """
    try:
        return from_json(body, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        field = str(error).rpartition("`$.")[2].rstrip("`")
        hint = _HINTS.get(field, "GET /openapi.json describes what is understood")
        raise InvalidCall(told(error), hint=hint) from error


def chat_of(request: ChatCompletionRequest) -> Chat:
    """The call that a chat completion asks for.

    Raises:
        InvalidCall: Fields contradict each other.
        Unsupported: Something is asked for that cannot be had here.
    """
    if request.top_logprobs and not request.logprobs:
        raise InvalidCall(
            "`top_logprobs` needs `logprobs` - at `$.top_logprobs`", hint="set `logprobs` to true"
        )
    tools = tuple(_tool(tool) for tool in request.tools or ())
    return Chat(
        messages=tuple(_message(message, at) for at, message in enumerate(request.messages)),
        model=request.model or "",
        sampling=sampling_of(request),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=_stops(request),
        tools=tools,
        tool_choice=tool_choice_of(request.tool_choice, tools),
        constraint=_constraint(request, _format_of(request)),
        logprobs=bool(request.logprobs),
        top_logprobs=request.top_logprobs or 0,
    )


def complete_of(request: CompletionRequest) -> Complete:
    """The call that a text completion asks for; raises as `chat_of` does."""
    if request.echo:
        raise Unsupported(
            "`echo` is not supported - at `$.echo`", hint="put the prompt before the text yourself"
        )
    if request.suffix:
        raise Unsupported("`suffix` is not supported - at `$.suffix`", hint="leave it out")
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[0]
    return Complete(
        prompt=_text(prompt, "prompt"),
        model=request.model or "",
        sampling=sampling_of(request),
        max_tokens=request.max_tokens or DEFAULT_COMPLETION_TOKENS,
        stop=_stops(request),
        constraint=_constraint(request, None),
        logprobs=request.logprobs is not None,
        top_logprobs=request.logprobs or 0,
    )


def embed_of(request: EmbeddingRequest) -> Embed:
    """The call that an embedding asks for; raises as `chat_of` does."""
    if request.dimensions is not None:
        raise Unsupported("`dimensions` is not supported - at `$.dimensions`", hint="leave it out")
    given = [request.input] if isinstance(request.input, str) else request.input
    texts = tuple(_text(item, f"input[{at}]") for at, item in enumerate(given))
    if not all(texts):
        raise InvalidCall("an input is empty - at `$.input`", hint="send at least one character")
    return Embed(texts=texts, model=request.model or "")


def sampling_of(request: SamplingFields) -> Sampling:
    """How tokens are chosen, with OpenAI's defaults."""
    repeat = request.repetition_penalty or request.repeat_penalty
    return Sampling(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_k=max(0, request.top_k or 0),
        top_p=1.0 if request.top_p is None else request.top_p,
        min_p=request.min_p or 0.0,
        repeat_penalty=repeat or 1.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        seed=None if request.seed is None else request.seed & _MAX_SEED,
    )


def _text(given: str | int | list[int], field: str) -> str:
    if not isinstance(given, str):
        raise Unsupported(f"token ids are not accepted - at `$.{field}`", hint="send text")
    return given


def _stops(request: SamplingFields) -> tuple[str, ...]:
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())


def _message(message: ChatMessage, at: int) -> Message:
    where = f"messages[{at}]"
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidCall(
            f"a tool message needs `tool_call_id` - at `$.{where}`",
            hint="name the call that it answers",
        )
    if message.tool_calls and message.role != "assistant":
        raise InvalidCall(
            f"only the assistant makes tool calls - at `$.{where}.tool_calls`",
            hint="check the role",
        )
    calls = (
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    )
    return Message(
        role=Role.SYSTEM if message.role == "developer" else Role(message.role),
        content=_content(message),
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id or "",
        name=message.name or "",
    )


def _content(message: ChatMessage) -> str | tuple[TextPart | ImagePart, ...]:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    parts = tuple(_part(part) for part in message.content)
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _part(part: TextContent | ImageContent | RefusalContent) -> TextPart | ImagePart:
    match part:
        case TextContent(text=text):
            return TextPart(text)
        case RefusalContent(refusal=text):
            return TextPart(text)
        case ImageContent(image_url=image):
            return ImagePart(image.url, image.detail or "auto")
        case _:
            assert_never(part)


def _tool(tool: FunctionTool) -> ToolSpec:
    function = tool.function
    return ToolSpec(function.name, function.description or "", function.parameters or {})


def tool_choice_of(choice: str | NamedToolChoice | None, tools: tuple[ToolSpec, ...]) -> ToolChoice:
    """Whether tools may or must be called.

    Raises:
        InvalidCall: Two tools have one name, or the choice is none of them.
    """
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidCall("two tools have the same name - at `$.tools`", hint="rename one")
    match choice:
        case None:
            return ToolChoice()
        case NamedToolChoice(function=function) if function.name in names:
            return ToolChoice("tool", function.name)
        case NamedToolChoice(function=function):
            raise InvalidCall(
                f"no tool is named {function.name!r} - at `$.tool_choice`",
                hint="name one of `tools`",
            )
        case "required" if not tools:
            raise InvalidCall(
                "`tool_choice` needs `tools` - at `$.tool_choice`", hint="send `tools`"
            )
        case str() as mode:
            return ToolChoice(mode)


def _format_of(request: ChatCompletionRequest) -> Constraint | None:
    match request.response_format:
        case None | TextFormat():
            return None
        case JsonObjectFormat():
            return JsonSchema({"type": "object"})
        case JsonSchemaFormat(json_schema=named):
            return JsonSchema(named.schema, named.name)
        case _:
            assert_never(request.response_format)


def _constraint(request: SamplingFields, chosen: Constraint | None) -> Constraint | None:
    """The one constraint of a request, whichever way it is given."""
    outputs = request.structured_outputs
    given = [
        chosen,
        _regex(request.guided_regex),
        _schema(request.guided_json),
        _regex(outputs.regex if outputs else None),
        _schema(outputs.json if outputs else None),
    ]
    found = [constraint for constraint in given if constraint is not None]
    if len(found) > 1:
        raise InvalidCall(
            "the output is constrained in two ways",
            hint="use one of `response_format`, `guided_*` and `structured_outputs`",
        )
    return found[0] if found else None


def _regex(pattern: str | None) -> Regex | None:
    return None if pattern is None else Regex(pattern)


def _schema(schema: JsonObject | None) -> JsonSchema | None:
    return None if schema is None else JsonSchema(schema)
