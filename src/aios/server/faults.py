"""How errors look over HTTP: as a `fault` frame on the native routes, in OpenAI's shape everywhere else."""

import math
import re
from http import HTTPStatus

import msgspec
from msgspec import Struct
from starlette.responses import Response

from aios.abi.gate import Fault, fault_of
from aios.abi.wire import frame_to_json
from aios.errors import (
    AiosError,
    ContextWindowExceeded,
    InvalidCall,
    NotFound,
    TooLarge,
    Unauthenticated,
    WorldError,
)

NATIVE_PREFIX = "/aios/"
JSON_TYPE = "application/json"

_OPENAI_CODES: dict[type[AiosError], str] = {
    ContextWindowExceeded: "context_length_exceeded",
    NotFound: "model_not_found",  # the only thing to be found on those routes
    Unauthenticated: "invalid_api_key",
}
"""Where OpenAI has a word of its own that clients look for."""

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_STATUS_CODES = {404: NotFound.code, 413: TooLarge.code}
_FIELD = re.compile(r" - at `\$\.?([^`]*)`")


class ErrorBody(Struct, frozen=True):
    """What went wrong, as OpenAI's clients expect it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Struct, frozen=True):
    """The body of every reply with an error."""

    error: ErrorBody


def error_reply(error: AiosError) -> ErrorReply:
    """An error in OpenAI's shape."""
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    code = _OPENAI_CODES.get(type(error), error.code)
    return ErrorReply(ErrorBody(message, _type_of(error.http_status), field_of(error), code))


def field_of(error: AiosError) -> str | None:
    """The field of the request that an error is about, if its message names one."""
    found = _FIELD.search(error.message)
    return found.group(1) or None if found else None


def error_json(error: AiosError) -> bytes:
    """The JSON of an error in OpenAI's shape."""
    return msgspec.json.encode(error_reply(error))


def fault_response(error: AiosError, path: str) -> Response:
    """The reply for an error on a route."""
    body = frame_to_json(fault_of(error)) if path.startswith(NATIVE_PREFIX) else error_json(error)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body, error.http_status, headers, JSON_TYPE)


def status_response(status: int, message: str, path: str) -> Response:
    """The reply for a request that HTTP itself has a word for (408, 415, 431, ...)."""
    code = _code_of(status)
    if path.startswith(NATIVE_PREFIX):
        body = frame_to_json(Fault(code, message))
    else:
        body = msgspec.json.encode(_reply_of(status, message))
    return Response(body, status, media_type=JSON_TYPE)


def raw_response(status: int, message: str) -> bytes:
    """A whole HTTP/1.1 reply, for a connection on which no request could be read; it closes the connection."""
    body = msgspec.json.encode(_reply_of(status, message))
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {JSON_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _reply_of(status: int, message: str) -> ErrorReply:
    return ErrorReply(ErrorBody(message, _type_of(status), None, _code_of(status)))


def _type_of(status: int) -> str:
    return _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def _code_of(status: int) -> str:
    """A word for a status: that of our error class, else HTTP's own."""
    if status in _STATUS_CODES:
        return _STATUS_CODES[status]
    return InvalidCall.code if status < 500 else WorldError.code
