"""Token ids and counts from servers that have a route for them, which OpenAI's API does not."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.calls import CountTokens, TokenCount, Tokenize, Tokens
from aios.abi.gate import Fault, Result, error_of
from aios.abi.types import JsonObject
from aios.abi.wire import call_to_json, frame_from_json
from aios.engine.base import ChatPrompt
from aios.engine.remote.chunks import MAX_COUNT, count_of
from aios.engine.remote.dialect import Flavour, message_json, tool_json
from aios.engine.remote.endpoint import Endpoint
from aios.errors import EngineFailed, InvalidCall
from aios.readers import from_json

SPARE_BYTES = 1 << 20
BYTES_A_CHAR = 64
"""What may be answered to each character of a question: one is four tokens at most, and an id is said in less than 16 bytes."""

A = TypeVar("A", bound=Answer)
T = TypeVar("T", bound=Struct)


class _Ids(Struct):
    tokens: list[Annotated[int, Meta(ge=0, le=MAX_COUNT)]]


class _Count(Struct):
    count: int


class _Rendered(Struct):
    prompt: str


async def tokenize_text(
    endpoint: Endpoint, flavour: Flavour, *, model: str, text: str
) -> tuple[int, ...]:
    """Ids of a text, without special tokens.

    Raises:
        AiosError: See `problems.error_of`.
    """
    if flavour is Flavour.AIOS:
        return (await call_aios(endpoint, Tokenize(text=text, model=model), Tokens)).tokens
    if flavour is Flavour.VLLM:
        body: JsonObject = {"model": model, "prompt": text, "add_special_tokens": False}
    else:
        body = {"content": text, "add_special": False, "parse_special": False}
    return tuple((await _post(endpoint, "/tokenize", body, _Ids)).tokens)


async def count_chat(
    endpoint: Endpoint, flavour: Flavour, *, model: str, prompt: ChatPrompt
) -> int:
    """Tokens of a conversation in the model's template.

    Raises:
        AiosError: See `problems.error_of`.
    """
    if flavour is Flavour.AIOS:
        call = CountTokens(messages=prompt.messages, tools=prompt.tools, model=model)
        return count_of((await call_aios(endpoint, call, TokenCount)).n_tokens)
    body: JsonObject = {"messages": [message_json(message) for message in prompt.messages]}
    if prompt.tools:
        body["tools"] = [tool_json(tool) for tool in prompt.tools]
    if flavour is Flavour.VLLM:
        body |= {"model": model, "add_generation_prompt": True}
        return count_of((await _post(endpoint, "/tokenize", body, _Count)).count)
    rendered = await _post(endpoint, "/apply-template", body, _Rendered)
    body = {"content": rendered.prompt, "add_special": True, "parse_special": True}
    return len((await _post(endpoint, "/tokenize", body, _Ids)).tokens)


async def call_aios(endpoint: Endpoint, call: Call[A], kind: type[A]) -> A:
    """A system call of another AIOS.

    Raises:
        AiosError: As over there, or see `problems.error_of`.
    """
    body: JsonObject = msgspec.json.decode(call_to_json(call))
    url = f"{endpoint.root_url}/aios/call"
    answer = await endpoint.fetch("POST", url, max_bytes=_max_bytes(body), body=lambda: body)
    try:
        frame = frame_from_json(answer)
    except InvalidCall as error:
        raise EngineFailed(
            f"{endpoint.site.host} answered /aios/call with something else"
        ) from error
    if isinstance(frame, Fault):
        raise error_of(frame)
    if not (isinstance(frame, Result) and isinstance(frame.value, kind)):
        raise EngineFailed(f"{endpoint.site.host} answered /aios/call with the wrong frame")
    return frame.value


async def _post(endpoint: Endpoint, route: str, body: JsonObject, kind: type[T]) -> T:
    answer = await endpoint.fetch(
        "POST", endpoint.root_url + route, max_bytes=_max_bytes(body), body=lambda: body
    )
    try:
        return from_json(answer, kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EngineFailed(
            f"{endpoint.site.host} answered {route} with something else: {error}"
        ) from error


def _max_bytes(body: JsonObject) -> int:
    return SPARE_BYTES + BYTES_A_CHAR * len(str(body))
