"""`GET /openapi.json`: the routes by hand, the bodies from the very classes that read and write them."""

import re
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from aios import __version__
from aios.abi.every import AnyAnswer, AnyCall, Frame
from aios.abi.gate import Fault, Result
from aios.server.approvals import PATH as APPROVALS
from aios.server.approvals import AnswerBody
from aios.server.faults import JSON_TYPE, NATIVE_PREFIX, ErrorReply
from aios.server.links import TYPE as LINKED
from aios.server.openai_types import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingReply,
    EmbeddingRequest,
    ModelCard,
    ModelList,
    TextCompletion,
)
from aios.server.responses_types import ResponseEvent, ResponseObject, ResponseRequest
from aios.server.stream import EVENTS, NDJSON

Json = dict[str, Any]
REF = "#/components/schemas/{name}"

_RESULT_NAME = re.compile(rb"Result_[A-Za-z0-9_.]+")
"""msgspec names a generic class after all its parameters."""
_ERRORS = {
    "400": "malformed, out of range, or a limit of the model",
    "401": "no valid token",
    "403": "no right to do this",
    "404": "no such process, program or model",
    "408": "the request did not arrive in time",
    "409": "the process has exited, or is in a state in which this cannot be done",
    "413": "the body is too large",
    "415": "the body is compressed",
    "429": "a queue is full",
    "500": "a bug",
    "502": "the engine failed",
    "503": "no engine, or the kernel is stopping",
    "504": "the call's own deadline passed",
}


class Health(msgspec.Struct):
    """Whether calls are taken."""

    status: str


class Operation(Struct, frozen=True):
    """One route. `replies` are the classes of its answers by content type."""

    method: str
    path: str
    summary: str
    replies: dict[str, Any]
    body: Any = None
    parameters: tuple[Json, ...] = ()
    is_open: bool = False


_NUMBER: Json = {
    "name": "number",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}

OPERATIONS = (
    Operation("get", "/health", "Whether calls are taken", {JSON_TYPE: Health}, is_open=True),
    Operation("get", "/openapi.json", "This document", {JSON_TYPE: dict[str, Any]}),
    Operation(
        "post",
        "/aios/call",
        "Make a system call and wait for its end",
        {JSON_TYPE: Result[AnyAnswer]},
        AnyCall,
    ),
    Operation(
        "post",
        "/aios/stream",
        "Make a system call and read its frames as they come, one a line or, if events are accepted, one an event",
        {NDJSON: Frame, EVENTS: Frame},
        AnyCall,
    ),
    Operation(
        "get",
        "/aios/ps",
        "The call `ps`",
        {JSON_TYPE: Result[AnyAnswer]},
        parameters=(
            {
                "name": "all",
                "in": "query",
                "description": "also those that have ended",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
        ),
    ),
    Operation(
        "get",
        APPROVALS,
        "The call `approval_list`",
        {JSON_TYPE: Result[AnyAnswer]},
        parameters=(
            {
                "name": "all",
                "in": "query",
                "description": "also answers that hold, and what is over",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
        ),
    ),
    Operation(
        "post",
        f"{APPROVALS}/{{number}}",
        "The call `approval_answer`",
        {JSON_TYPE: Result[AnyAnswer]},
        AnswerBody,
        parameters=(_NUMBER,),
    ),
    Operation(
        "delete",
        f"{APPROVALS}/{{number}}",
        "The call `approval_revoke`",
        {JSON_TYPE: Result[AnyAnswer]},
        parameters=(_NUMBER,),
    ),
    Operation(
        "get",
        "/aios/files/{token}",
        "The version of a file that a link leads to",
        {LINKED: bytes},
        parameters=(
            {
                "name": "token",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            },
        ),
        is_open=True,
    ),
    Operation("get", "/v1/models", "The models that are served", {JSON_TYPE: ModelList}),
    Operation(
        "get",
        "/v1/models/{name}",
        "One model, by any name that requests may use",
        {JSON_TYPE: ModelCard},
        parameters=(
            {
                "name": "name",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            },
        ),
    ),
    Operation(
        "post",
        "/v1/chat/completions",
        "Write the next message of a conversation",
        {JSON_TYPE: ChatCompletion, EVENTS: ChatCompletionChunk},
        ChatCompletionRequest,
    ),
    Operation(
        "post",
        "/v1/responses",
        "Write the next items of a conversation; nothing is stored",
        {JSON_TYPE: ResponseObject, EVENTS: ResponseEvent},
        ResponseRequest,
    ),
    Operation(
        "post",
        "/v1/completions",
        "Go on with a text",
        {JSON_TYPE: TextCompletion, EVENTS: TextCompletion},
        CompletionRequest,
    ),
    Operation(
        "post",
        "/v1/embeddings",
        "Turn texts into vectors",
        {JSON_TYPE: EmbeddingReply},
        EmbeddingRequest,
    ),
)


@cache
def document() -> bytes:
    """The OpenAPI 3.1 document as JSON. Cost: 60 ms for the first who asks, in which the kernel does nothing else."""
    kinds = [Fault, ErrorReply]
    for operation in OPERATIONS:
        kinds += operation.replies.values()
        kinds += [operation.body] if operation.body is not None else []
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=_any_json, ref_template=REF
    )
    by_kind = dict(zip(map(_key, kinds), schemas, strict=True))
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, by_kind)
    encoded = msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "AIOS",
                "version": __version__,
                "description": "The kernel over HTTP: native system calls and an OpenAI-compatible API.",
            },
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }
    )
    return _RESULT_NAME.sub(b"Result", encoded)


def _operation(operation: Operation, by_kind: dict[str, Json]) -> Json:
    is_native = operation.path.startswith(NATIVE_PREFIX)
    content = {
        kind: {"schema": _event(schema, is_native=is_native) if kind == EVENTS else schema}
        for kind, cls in operation.replies.items()
        for schema in [by_kind[_key(cls)]]
    }
    responses: Json = {"200": {"description": "done", "content": content}}
    error = Fault if is_native else ErrorReply
    errors = _ERRORS if is_native or not operation.is_open else {}
    if not errors:
        responses["503"] = {"description": "the kernel is stopping", "content": content}
    for status, meaning in errors.items():
        schema = by_kind[_key(error)]
        responses[status] = {"description": meaning, "content": {JSON_TYPE: {"schema": schema}}}
    described: Json = {"summary": operation.summary, "responses": responses}
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        schema = by_kind[_key(operation.body)]
        described["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    if operation.is_open:
        described["security"] = []
    return described


def _event(data: Json, *, is_native: bool) -> Json:
    """The schema of a server-sent event. OpenAI's streams may end in an error, and else in one whose data is `[DONE]`."""
    described: Json = {"type": "string", "contentMediaType": JSON_TYPE, "contentSchema": data}
    if not is_native:
        described["contentSchema"] = {"anyOf": [data, {"$ref": REF.format(name="ErrorReply")}]}
        described = {"anyOf": [described, {"const": "[DONE]"}]}
    return {"type": "object", "properties": {"data": described}, "required": ["data"]}


def _key(kind: object) -> str:
    return repr(kind)


def _any_json(_: type) -> Json:
    """The schema of what is passed on without being looked at."""
    return {"description": "any JSON value"}
