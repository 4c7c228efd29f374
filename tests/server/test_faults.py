import json

import pytest

from aios.abi.gate import Fault
from aios.abi.wire import frame_from_json
from aios.errors import (
    AiosError,
    ContextWindowExceeded,
    InvalidCall,
    KernelBug,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    error_classes,
)
from aios.server.faults import error_json, fault_response, raw_response, status_response


@pytest.mark.parametrize("cls", error_classes().values())
def test_every_error_has_both_shapes_and_its_status(cls: type[AiosError]) -> None:
    error = cls("it broke", hint="mend it", retry_after_s=1.2)
    native = fault_response(error, "/aios/call")
    assert native.status_code == cls.http_status >= 400
    assert frame_from_json(bytes(native.body)) == Fault(cls.code, "it broke", "mend it", 1.2)
    openai = fault_response(error, "/v1/models")
    body = json.loads(bytes(openai.body))["error"]
    assert body["message"] == "it broke (mend it)"
    assert body["type"]
    assert body["code"]
    assert openai.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (InvalidCall("x"), "invalid_request_error", "invalid_call"),
        (Unauthenticated("x"), "authentication_error", "invalid_api_key"),
        (NotFound("x"), "not_found_error", "model_not_found"),
        (ContextWindowExceeded("x"), "invalid_request_error", "context_length_exceeded"),
        (ResourceExhausted("x"), "rate_limit_error", "resource_exhausted"),
        (KernelBug("x"), "server_error", "kernel_bug"),
    ],
)
def test_openai_clients_find_their_own_words(error: AiosError, kind: str, code: str) -> None:
    body = json.loads(error_json(error))["error"]
    assert (body["type"], body["code"]) == (kind, code)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Expected `int`, got `str` - at `$.messages[0].role`", "messages[0].role"),
        ("Expected `object` - at `$`", None),
        ("no such thing", None),
    ],
)
def test_the_field_that_is_wrong_is_named(message: str, param: str | None) -> None:
    assert json.loads(error_json(InvalidCall(message)))["error"]["param"] == param


def test_what_http_itself_refuses_has_both_shapes_too() -> None:
    openai = json.loads(bytes(status_response(408, "too slow", "/v1/models").body))
    assert openai["error"]["message"] == "too slow"
    native = frame_from_json(bytes(status_response(404, "nothing", "/aios/x").body))
    assert native == Fault("not_found", "nothing")


def test_a_raw_reply_is_whole_http() -> None:
    head, _, body = raw_response(431, "too large").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["message"] == "too large"


def test_who_has_no_token_is_told_how_to_send_one() -> None:
    response = fault_response(Unauthenticated("no token"), "/v1/models")
    assert response.headers["www-authenticate"] == "Bearer"
