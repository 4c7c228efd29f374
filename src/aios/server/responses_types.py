"""What OpenAI's Responses API sends and gets, as values; only the fields that mean something here.

As in `openai_types.py`: unknown fields are ignored, null is the same as absent, and what cannot be honoured is refused. Nothing
is stored: the client sends the whole conversation each time.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.types import JsonObject
from aios.server.openai_types import Fraction, MaxTokens, ModelName, Temperature, ToolName

CallId = Annotated[str, Meta(min_length=1, max_length=512)]
Status = Literal["in_progress", "completed", "incomplete", "failed"]

# --- what comes in -----------------------------------------------------------------------------------------------


class InputText(Struct, frozen=True, tag_field="type", tag="input_text"):
    """A piece of text."""

    text: str


class InputImage(Struct, frozen=True, tag_field="type", tag="input_image"):
    """An image: an https or `data:` URL. Files are refused."""

    image_url: Annotated[str, Meta(pattern="^(https://|data:image/)")]
    detail: str | None = None


class GivenOutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    """A piece of text that a model wrote earlier."""

    text: str


class GivenRefusal(Struct, frozen=True, tag_field="type", tag="refusal"):
    """A refusal that a model gave earlier."""

    refusal: str


InputPart = InputText | InputImage | GivenOutputText | GivenRefusal


class InputItem(Struct, frozen=True, kw_only=True):
    """One item of the conversation: a message (`role`, `content`), a tool call, or what a tool answered.

    One class for all three, for a message may come without its `type`.
    """

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[InputPart] | None = None
    call_id: CallId | None = None
    name: ToolName | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None


class ResponseTool(Struct, frozen=True, kw_only=True):
    """A function that the model may call. Tools that OpenAI itself runs are not there."""

    name: ToolName
    type: Literal["function"] = "function"
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ResponseToolChoice(Struct, frozen=True, kw_only=True):
    """Call this one."""

    name: ToolName
    type: Literal["function"] = "function"


class PlainFormat(Struct, frozen=True, tag_field="type", tag="text"):
    """Free text."""


class ObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class SchemaFormat(Struct, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    """JSON of this schema (2020-12)."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    schema: JsonObject
    description: str | None = None
    strict: bool | None = None


class ResponseText(Struct, frozen=True):
    """How the text must look."""

    format: PlainFormat | ObjectFormat | SchemaFormat | None = None


class ResponseRequest(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/responses`."""

    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=100_000)]
    model: ModelName | None = None
    instructions: str | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    text: ResponseText | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | JsonObject | None = None
    prompt: JsonObject | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None


# --- what goes out -----------------------------------------------------------------------------------------------


class OutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    """The text of a message."""

    text: str
    annotations: tuple[JsonObject, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()


class OutputMessage(Struct, frozen=True, tag_field="type", tag="message"):
    """A message that the model wrote."""

    id: str
    status: Status
    content: tuple[OutputText, ...]
    role: Literal["assistant"] = "assistant"


class OutputCall(Struct, frozen=True, tag_field="type", tag="function_call"):
    """A tool call that the model asks for."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


OutputItem = OutputMessage | OutputCall


class InputDetails(Struct, frozen=True):
    """How much of the prompt was not computed again."""

    cached_tokens: int


class OutputDetails(Struct, frozen=True):
    """How much of the output was thinking: nothing is told apart here."""

    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True):
    """Tokens of one response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(Struct, frozen=True):
    """Why a response is not whole."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseObject(Struct, frozen=True, kw_only=True):
    """The reply of `POST /v1/responses`."""

    id: str
    created_at: int
    status: Status
    model: str
    output: tuple[OutputItem, ...]
    object: Literal["response"] = "response"
    error: None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    store: bool = False
    temperature: float = 1.0
    text: ResponseText
    tool_choice: str | ResponseToolChoice
    tools: tuple[ResponseTool, ...]
    top_p: float = 1.0
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None


class ResponseEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a streamed response; which fields there are follows from its type."""

    type: str
    sequence_number: int
    response: ResponseObject | None = None
    output_index: int | None = None
    content_index: int | None = None
    item_id: str | None = None
    item: OutputItem | None = None
    part: OutputText | None = None
    delta: str | None = None
    logprobs: tuple[JsonObject, ...] | None = None
    text: str | None = None
    name: str | None = None
    arguments: str | None = None
