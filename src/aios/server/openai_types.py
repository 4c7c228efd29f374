"""What OpenAI's clients send and what they get, as values; only the fields that mean something here.

Unknown fields are ignored and null is the same as absent, as OpenAI has it. What is known and cannot be honoured is
refused with a message that says so, never dropped. `openapi.py` publishes these classes.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from aios.abi.types import JsonObject

Temperature = Annotated[float, Meta(ge=0, le=2)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Repeat = Annotated[float, Meta(gt=0, le=100)]
MaxTokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Top = Annotated[int, Meta(ge=0, le=20)]
TopK = Annotated[int, Meta(ge=-1, le=1_000_000, description="0 and -1: off")]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=512)]
Stops = Annotated[list[Stop], Meta(max_length=16)]
ModelName = Annotated[str, Meta(max_length=512, description="as in /v1/models; or `default`")]
ToolName = Annotated[str, Meta(min_length=1, max_length=128)]
TokenId = Annotated[str, Meta(pattern="^[0-9]{1,9}(?!\\n)$")]
Pattern = Annotated[str, Meta(min_length=1, max_length=65536)]
One = Annotated[int, Meta(ge=1, le=1, description="one choice a request")]


# --- what comes in -----------------------------------------------------------------------------------------------


class TextContent(Struct, frozen=True, tag_field="type", tag="text"):
    """A piece of text."""

    text: str


class ImageUrl(Struct, frozen=True):
    """Where an image is: an https or `data:` URL."""

    url: Annotated[str, Meta(pattern="^(https://|data:image/)")]
    detail: str | None = None


class ImageContent(Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageUrl


class RefusalContent(Struct, frozen=True, tag_field="type", tag="refusal"):
    """A refusal that a model gave earlier."""

    refusal: str


class FunctionCall(Struct, frozen=True):
    """The function that a model wants to be called; `arguments` is JSON text."""

    name: ToolName
    arguments: str


class FunctionToolCall(Struct, frozen=True):
    """A tool call."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(Struct, frozen=True):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextContent | ImageContent | RefusalContent] | None = None
    name: str | None = None
    tool_calls: list[FunctionToolCall] | None = None
    tool_call_id: str | None = None


class FunctionSpec(Struct, frozen=True):
    """A function that a model may ask to be called; `parameters` is a JSON Schema of an object."""

    name: ToolName
    description: str | None = None
    parameters: JsonObject | None = None


class FunctionTool(Struct, frozen=True):
    """A tool."""

    function: FunctionSpec
    type: Literal["function"] = "function"


class NamedFunction(Struct, frozen=True):
    """A function by its name."""

    name: ToolName


class NamedToolChoice(Struct, frozen=True):
    """Call this one."""

    function: NamedFunction
    type: Literal["function"] = "function"


class TextFormat(Struct, frozen=True, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class NamedSchema(Struct, frozen=True):
    """A JSON Schema (2020-12) with a name."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    schema: JsonObject


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON of this schema."""

    json_schema: NamedSchema


class StructuredOutputs(Struct, frozen=True):
    """vLLM's way to constrain the output: one of the two."""

    regex: Pattern | None = None
    json: JsonObject | None = None


class StreamOptions(Struct, frozen=True):
    """What a stream brings beside the text."""

    include_usage: bool | None = None


class SamplingFields(Struct, frozen=True, kw_only=True):
    """What both kinds of generation take."""

    model: ModelName | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: TopK | None = None
    min_p: Fraction | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Repeat | None = None
    repeat_penalty: Repeat | None = None
    logit_bias: dict[TokenId, Bias] | None = None
    seed: Seed | None = None
    stop: Stop | Stops | None = None
    max_tokens: MaxTokens | None = None
    n: One | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    guided_regex: Pattern | None = None
    guided_json: JsonObject | None = None
    structured_outputs: StructuredOutputs | None = None


class ChatCompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=100_000)]
    max_completion_tokens: MaxTokens | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of `POST /v1/completions`. A prompt of token ids is refused."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=1)]
    logprobs: Top | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: One | None = None


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/embeddings`. Token ids and `dimensions` are refused."""

    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=2048)]
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


# --- what goes out -----------------------------------------------------------------------------------------------


class PromptDetails(Struct, frozen=True):
    """How much of the prompt was not computed again."""

    cached_tokens: int


class CompletionUsage(Struct, frozen=True):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopLogprob(Struct, frozen=True):
    """A token that could have been chosen."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobRow(Struct, frozen=True):
    """The token that was chosen, and the likeliest ones."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct, frozen=True):
    """A row for each token."""

    content: list[TokenLogprobRow]


class AssistantMessage(Struct, frozen=True):
    """What the model wrote."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[FunctionToolCall] | UnsetType = UNSET


class Choice(Struct, frozen=True):
    """The one choice of a chat completion."""

    index: int
    message: AssistantMessage
    finish_reason: str
    logprobs: ChoiceLogprobs | None


class ChatCompletion(Struct, frozen=True):
    """The reply of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class ToolCallDelta(Struct, frozen=True):
    """A whole tool call in a stream."""

    index: int
    id: str
    type: Literal["function"]
    function: FunctionCall


class Delta(Struct, frozen=True):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """The one choice of a chunk."""

    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: ChoiceLogprobs | None


class ChatCompletionChunk(Struct, frozen=True):
    """One event of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET


class TextLogprobs(Struct, frozen=True):
    """Log-probabilities of a text completion, in columns."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Struct, frozen=True):
    """The one choice of a text completion."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: TextLogprobs | None


class TextCompletion(Struct, frozen=True):
    """The reply of `POST /v1/completions`, and each event when it streams."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | UnsetType | None = UNSET


class EmbeddingUsage(Struct, frozen=True):
    """Tokens of an embedding request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingRow(Struct, frozen=True):
    """One vector: numbers, or base64 of little-endian 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: tuple[float, ...] | str


class EmbeddingReply(Struct, frozen=True):
    """The reply of `POST /v1/embeddings`."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingUsage


class ModelCard(Struct, frozen=True):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(Struct, frozen=True):
    """The reply of `GET /v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]
