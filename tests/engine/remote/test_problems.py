"""From what an endpoint said to an error that helps, without its secrets."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.engine.remote.problems import (
    CONNECT,
    DROPPED,
    MAX_MESSAGE_CHARS,
    SILENT,
    TLS,
    Problem,
    Site,
    error_of,
    listed,
    problem_in_stream,
    read_problem,
)
from aios.errors import (
    AiosError,
    ContextWindowExceeded,
    EngineFailed,
    EngineUnavailable,
    RateLimited,
    Unsupported,
    WorldError,
)

KEY = "sk-proj-Abc123_def"
SITE = Site("model.example.org", "MY_KEY", KEY, ("a", "b"))
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c", "param": "p"}}, "m", "c"),
        ({"error": {"message": "m", "type": "exceed_context_size_error", "code": None}}, "m", "exceed_context_size_error"),
        ({"error": "plain words"}, "plain words", ""),
        ({"object": "error", "message": "old vLLM", "type": "BadRequestError", "code": 400}, "old vLLM", "400"),
        ({"detail": "Not Found"}, "Not Found", ""),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]},
         "body.top_k: Extra inputs are not permitted", ""),
        ("just text", "just text", ""),
    ],
)  # fmt: skip
def test_every_servers_shape_is_read(body: object, message: str, code: str) -> None:
    problem = read_problem(400, JSON, json.dumps(body).encode())
    assert (problem.message, problem.code) == (message, code)


def test_a_page_of_unending_titles_is_read_in_no_time() -> None:
    begun_s = time.process_time()
    assert read_problem(500, {}, b"<title>" * 9_000).message == "an HTML page"
    assert (
        time.process_time() - begun_s < 1
    )  # each title tried to the end of the page, it takes 3 s


def test_pages_are_told_by_their_title() -> None:
    page = b"<!DOCTYPE html><html><head><title>502 Bad\nGateway</title></head><body>secret details</body></html>"
    problem = read_problem(502, {"content-type": "text/html; charset=utf-8"}, page)
    assert "Bad" in problem.message
    assert "secret details" not in problem.message


@given(
    st.binary(max_size=200),
    st.sampled_from(["", "text/html", "application/json"]),
    st.integers(100, 599),
)
def test_any_answer_becomes_an_error(body: bytes, content_type: str, status: int) -> None:
    error = error_of(read_problem(status, {"content-type": content_type}, body), SITE)
    assert isinstance(error, AiosError)
    assert error.hint
    assert len(error.message) < MAX_MESSAGE_CHARS + 100


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["error", "message", "detail", "code", "type", "param", "loc", "msg"]), inner), max_leaves=8))  # fmt: skip
def test_any_json_becomes_an_error(body: object) -> None:
    assert error_of(read_problem(400, JSON, json.dumps(body).encode()), SITE).message
    assert error_of(problem_in_stream(body), SITE).message


@pytest.mark.parametrize(
    "text",
    [
        f"bad key {KEY}",
        f"Authorization: Bearer {KEY}",
        "key sk-other-secret-42",
        f"x{KEY}x",
        "hf_abcdefghij",
        "Bearer xyz",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_no_secret_leaves(text: str, status: int) -> None:
    error = error_of(Problem(status, text), SITE)
    shown = f"{error.message} {error.hint}"
    assert "***" in shown
    for secret in (KEY, "other-secret", "abcdefghij", "xyz"):
        assert secret not in shown
    assert KEY not in repr(SITE)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CONNECT, EngineUnavailable),
        (TLS, EngineUnavailable),
        (DROPPED, EngineUnavailable),
        (SILENT, EngineFailed),  # others may be answered meanwhile
    ],
)
def test_no_answer_names_the_host(code: str, kind: type[AiosError]) -> None:
    error = error_of(Problem(0, "why", code), SITE)
    assert type(error) is kind
    assert "model.example.org" in error.message
    assert "why" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("problem", "is_transient"),
    [
        (Problem(0, "", CONNECT), True),
        (Problem(0, "", DROPPED), True),
        (Problem(0, "", SILENT), False),
        (Problem(0, "", TLS), False),
        (Problem(429, ""), True),
        (Problem(429, "", "insufficient_quota"), False),
        (Problem(503, ""), True),
        (Problem(501, ""), False),
        (Problem(400, ""), False),
        (Problem(500, "input (514 tokens) is too large to process"), False),
    ],
)
def test_only_what_passes_is_worth_another_try(problem: Problem, is_transient: bool) -> None:
    assert problem.is_transient is is_transient


def test_retry_after_reaches_the_caller() -> None:
    problem = read_problem(429, {"retry-after": "12"}, b"")
    error = error_of(problem, SITE)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 12


def test_our_own_codes_are_understood() -> None:
    assert isinstance(error_of(Problem(400, "no images", "unsupported"), SITE), Unsupported)
    assert isinstance(
        error_of(Problem(400, "x", "context_window_exceeded"), SITE), ContextWindowExceeded
    )
    assert isinstance(error_of(Problem(500, "too large to process"), SITE), ContextWindowExceeded)
    assert problem_in_stream({"message": "slow", "code": "rate_limited"}).status == 429
    assert problem_in_stream({"message": "x", "code": 503}).status == 503
    assert isinstance(error_of(problem_in_stream({"message": "CUDA"}), SITE), EngineFailed)


def test_every_error_of_the_world_keeps_its_kind() -> None:
    for status in (429, 500, 502, 503, 504, 529, 408):
        assert isinstance(error_of(Problem(status, ""), SITE), WorldError)


def test_long_lists_of_names_are_cut() -> None:
    assert listed(("a", "b")) == "`a`, `b`"
    assert listed(tuple(str(i) for i in range(100))).endswith("and 80 more")


def test_what_stands_behind_a_secret_stays() -> None:
    error = error_of(Problem(401, "send `Authorization: Bearer TOKEN`; it is in a file"), SITE)
    assert "send `Authorization: ***`; it is in a file" in error.message
