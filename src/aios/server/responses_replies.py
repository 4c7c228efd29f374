"""From the answer of a chat to what clients of the Responses API expect: the whole reply and the events of a stream."""

import secrets
from dataclasses import dataclass, field

import msgspec

from aios.abi.calls import ChatAnswer
from aios.abi.gate import Progress, Result, Token
from aios.abi.types import Finish, ToolCall, Usage
from aios.errors import AiosError
from aios.server.faults import error_reply
from aios.server.openai_replies import Tag
from aios.server.responses_types import (
    IncompleteDetails,
    InputDetails,
    OutputCall,
    OutputDetails,
    OutputItem,
    OutputMessage,
    OutputText,
    PlainFormat,
    ResponseObject,
    ResponseRequest,
    ResponseText,
    ResponseUsage,
    Status,
)
from aios.server.stream import EVENTS

_REASONS = {
    Finish.LENGTH: IncompleteDetails("max_output_tokens"),
    Finish.CONTENT_FILTER: IncompleteDetails("content_filter"),
}


def response_of(request: ResponseRequest, answer: ChatAnswer, tag: Tag) -> ResponseObject:
    """The whole reply."""
    text = answer.message.text()
    output: list[OutputItem] = []
    if text or not answer.message.tool_calls:
        output.append(_message(_new_id("msg"), text, _status(answer.finish)))
    output += [_call(call, "completed") for call in answer.message.tool_calls]
    return _ended(request, answer, tag, tuple(output))


def begun_response(request: ResponseRequest, tag: Tag) -> ResponseObject:
    """The reply before anything of it is there."""
    text = request.text
    return ResponseObject(
        id=tag.id,
        created_at=tag.created,
        status="in_progress",
        model=tag.model,
        output=(),
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        temperature=1.0 if request.temperature is None else request.temperature,
        text=text if text is not None and text.format else ResponseText(PlainFormat()),
        tool_choice=request.tool_choice or "auto",
        tools=tuple(request.tools or ()),
        top_p=1.0 if request.top_p is None else request.top_p,
        user=request.user,
    )


@dataclass(eq=False)
class ResponseEvents:
    """The events of a streamed response, in OpenAI's order; every item is opened, filled and closed."""

    request: ResponseRequest
    tag: Tag
    media_type: str = field(default=EVENTS, init=False)
    _items: list[OutputItem] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)
    _message_id: str = ""
    """Of the message that is being written, which is item `len(_items)`; empty if there is none."""
    _n_events: int = 0

    def progress(self, frame: Progress) -> bytes:
        if not isinstance(frame, Token):
            return b""
        out = self._begin()
        if frame.text:
            out += self._open_message() + self._text(frame.text)
        for call in frame.tool_calls:
            out += self._close_message("completed") + self._tool_call(call)
        return out

    def result(self, result: Result[ChatAnswer]) -> bytes:
        answer = result.value
        out = self._begin()
        if not self._items:
            out += self._open_message()
        out += self._close_message(_status(answer.finish))
        response = _ended(self.request, answer, self.tag, tuple(self._items))
        return out + self._event(f"response.{response.status}", response=response)

    def fault(self, error: AiosError) -> bytes:
        """The `error` event; `error` within it is what OpenAI's own package looks for."""
        body = error_reply(error).error
        told = {
            "type": "error",
            "sequence_number": self._n_events,
            "code": body.code,
            "message": body.message,
            "param": body.param,
            "error": body,
        }
        return _sse("error", msgspec.json.encode(told))

    def _begin(self) -> bytes:
        if self._n_events:
            return b""
        response = begun_response(self.request, self.tag)
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def _open_message(self) -> bytes:
        if self._message_id:
            return b""
        self._message_id, self._pieces = _new_id("msg"), []
        at = len(self._items)
        empty = OutputMessage(self._message_id, "in_progress", ())
        added = self._event("response.output_item.added", output_index=at, item=empty)
        return added + self._event(
            "response.content_part.added",
            output_index=at,
            content_index=0,
            item_id=self._message_id,
            part=OutputText(""),
        )

    def _text(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._event(
            "response.output_text.delta",
            output_index=len(self._items),
            content_index=0,
            item_id=self._message_id,
            delta=text,
            logprobs=(),
        )

    def _close_message(self, status: Status) -> bytes:
        if not self._message_id:
            return b""
        at, text, id_ = len(self._items), "".join(self._pieces), self._message_id
        message = _message(id_, text, status)
        self._items.append(message)
        self._message_id = ""
        return (
            self._event(
                "response.output_text.done",
                output_index=at,
                content_index=0,
                item_id=id_,
                text=text,
                logprobs=(),
            )
            + self._event(
                "response.content_part.done",
                output_index=at,
                content_index=0,
                item_id=id_,
                part=OutputText(text),
            )
            + self._event("response.output_item.done", output_index=at, item=message)
        )

    def _tool_call(self, call: ToolCall) -> bytes:
        at, item = len(self._items), _call(call, "completed")
        self._items.append(item)
        empty = msgspec.structs.replace(item, arguments="", status="in_progress")
        return (
            self._event("response.output_item.added", output_index=at, item=empty)
            + self._event(
                "response.function_call_arguments.delta",
                output_index=at,
                item_id=item.id,
                delta=call.arguments,
            )
            + self._event(
                "response.function_call_arguments.done",
                output_index=at,
                item_id=item.id,
                name=call.name,
                arguments=call.arguments,
            )
            + self._event("response.output_item.done", output_index=at, item=item)
        )

    def _event(self, kind: str, **fields: object) -> bytes:
        told = {"type": kind, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return _sse(kind, msgspec.json.encode(told))


def _ended(
    request: ResponseRequest, answer: ChatAnswer, tag: Tag, output: tuple[OutputItem, ...]
) -> ResponseObject:
    return msgspec.structs.replace(
        begun_response(request, tag),
        model=answer.model,
        status=_status(answer.finish),
        incomplete_details=_REASONS.get(answer.finish),
        output=output,
        usage=_usage(answer.usage),
    )


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputDetails(usage.cached_tokens),
        usage.completion_tokens,
        OutputDetails(),
        usage.prompt_tokens + usage.completion_tokens,
    )


def _status(finish: Finish) -> Status:
    return "incomplete" if finish in _REASONS else "completed"


def _message(id_: str, text: str, status: Status) -> OutputMessage:
    return OutputMessage(id_, status, (OutputText(text),))


def _call(call: ToolCall, status: Status) -> OutputCall:
    return OutputCall(_new_id("fc"), call.id, call.name, call.arguments, status)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _sse(kind: str, data: bytes) -> bytes:
    return b"event: " + kind.encode("ascii") + b"\ndata: " + data + b"\n\n"
