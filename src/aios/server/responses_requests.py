"""From the body of a Responses request to a system call. Pure."""

from typing import TypeVar, assert_never

from aios.abi.calls import Chat
from aios.abi.types import (
    Constraint,
    ImagePart,
    JsonSchema,
    Message,
    Role,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from aios.errors import InvalidCall, Unsupported
from aios.server.openai_requests import sampling_of, tool_choice_of
from aios.server.openai_types import NamedFunction, NamedToolChoice, SamplingFields
from aios.server.responses_types import (
    GivenOutputText,
    GivenRefusal,
    InputImage,
    InputItem,
    InputPart,
    InputText,
    ObjectFormat,
    PlainFormat,
    ResponseRequest,
    ResponseToolChoice,
    SchemaFormat,
)

T = TypeVar("T")

WHOLE = "send the whole conversation as `input`: responses, conversations and prompts are not stored here"


def response_call(request: ResponseRequest) -> Chat:
    """The call that a response asks for.

    Raises:
        InvalidCall: Items or fields contradict each other.
        Unsupported: Something is asked for that cannot be had here.
    """
    _refuse_storage(request)
    tools = tuple(
        ToolSpec(tool.name, tool.description or "", tool.parameters or {})
        for tool in request.tools or ()
    )
    return Chat(
        messages=tuple(_messages(request)),
        model=request.model or "",
        sampling=sampling_of(SamplingFields(temperature=request.temperature, top_p=request.top_p)),
        max_tokens=request.max_output_tokens,
        tools=tools,
        tool_choice=_choice(request, tools),
        constraint=_constraint(request),
    )


def _refuse_storage(request: ResponseRequest) -> None:
    asked = {
        "previous_response_id": request.previous_response_id,
        "conversation": request.conversation,
        "prompt": request.prompt,
        "store": request.store,
        "background": request.background,
    }
    for field, value in asked.items():
        if value:
            raise Unsupported(f"`{field}` is not supported - at `$.{field}`", hint=WHOLE)


def _messages(request: ResponseRequest) -> list[Message]:
    """The conversation; tool calls that follow each other, or a text of the assistant, are one message."""
    found = [Message(Role.SYSTEM, request.instructions)] if request.instructions else []
    items = request.input if isinstance(request.input, list) else None
    if items is None:
        return [*found, Message(Role.USER, str(request.input))]
    for at, item in enumerate(items):
        message = _message(item, f"input[{at}]")
        last = found[-1] if found else None
        if item.type == "function_call" and last is not None and last.role is Role.ASSISTANT:
            calls = (*last.tool_calls, *message.tool_calls)
            found[-1] = Message(Role.ASSISTANT, last.content, calls)
        else:
            found.append(message)
    return found


def _message(item: InputItem, where: str) -> Message:
    match item.type:
        case "message":
            role = _given(item.role, f"{where}.role")
            role = "system" if role == "developer" else role
            return Message(Role(role), _content(item.content, f"{where}.content"))
        case "function_call":
            call = ToolCall(
                _given(item.call_id, f"{where}.call_id"),
                _given(item.name, f"{where}.name"),
                _given(item.arguments, f"{where}.arguments"),
            )
            return Message(Role.ASSISTANT, "", (call,))
        case "function_call_output":
            content = _content(item.output, f"{where}.output")
            call_id = _given(item.call_id, f"{where}.call_id")
            return Message(Role.TOOL, content, tool_call_id=call_id)
        case _:
            assert_never(item.type)


def _given(value: T | None, where: str) -> T:
    if value is None:
        raise _missing(where)
    return value


def _missing(where: str) -> InvalidCall:
    name = where.rpartition(".")[2]
    return InvalidCall(f"the item needs `{name}` - at `$.{where}`", hint="see /openapi.json")


def _content(
    content: str | list[InputPart] | None, where: str
) -> str | tuple[TextPart | ImagePart, ...]:
    if content is None:
        raise _missing(where)
    if isinstance(content, str):
        return content
    parts = tuple(_part(part) for part in content)
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _part(part: InputPart) -> TextPart | ImagePart:
    match part:
        case InputText(text=text) | GivenOutputText(text=text) | GivenRefusal(refusal=text):
            return TextPart(text)
        case InputImage(image_url=url, detail=detail):
            return ImagePart(url, detail or "auto")
        case _:
            assert_never(part)


def _choice(request: ResponseRequest, tools: tuple[ToolSpec, ...]) -> ToolChoice:
    match request.tool_choice:
        case ResponseToolChoice(name=name):
            return tool_choice_of(NamedToolChoice(NamedFunction(name)), tools)
        case choice:
            return tool_choice_of(choice, tools)


def _constraint(request: ResponseRequest) -> Constraint | None:
    wanted = request.text.format if request.text is not None else None
    match wanted:
        case None | PlainFormat():
            return None
        case ObjectFormat():
            return JsonSchema({"type": "object"})
        case SchemaFormat(schema=schema, name=name):
            return JsonSchema(schema, name)
        case _:
            assert_never(wanted)
