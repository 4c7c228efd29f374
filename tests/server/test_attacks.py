"""Hundreds of malformed requests on every route: each gets a 4xx with a clear message, and the server goes on."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.serving import Served, serving

from aios.config import ServerConfig

pytestmark = pytest.mark.anyio

SMALL = ServerConfig(port=0, max_body_bytes=200_000, header_timeout_s=2)
MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/responses": {"input": MESSAGES, "max_output_tokens": 2},
    "/v1/completions": {"prompt": "hi", "max_tokens": 2},
    "/v1/embeddings": {"input": "hi"},
    "/aios/call": {"call": "chat", "messages": MESSAGES, "max_tokens": 2},
    "/aios/stream": {"call": "chat", "messages": MESSAGES, "max_tokens": 2},
}
OPTIONAL = {"max_tokens", "max_output_tokens"}
NO_JSON = [
    b"", b"{", b"[", b"null", b"5", b'"x"', b"[]", b"{}", b"{} {}", b"\xff", b'{"a":"\xff"}', b"NaN", b'{"max_tokens":NaN}', b"a=b",
    b"\x00" * 50, b"[" * 5_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"1" * 5_000, b"\xef\xbb\xbf{}", b'{"model":"\\ud800"}', b"{'a':1}",
    b" " * 300_000,
]  # fmt: skip
WRONG: list[Any] = [
    None, True, -1, 2**70, 1.5, 1e308, "", "x" * 70_000, [], [[]], {}, {"a": {}}, "\x00", [None], "\u202e",
]  # fmt: skip

BAD: list[Any] = [True, 2**70, {"a": {}}, [[None]]]


def malformed(path: str) -> Iterator[bytes]:
    """Bodies that are no request, whatever the route."""
    yield from NO_JSON
    sound = REQUESTS[path]
    text = json.dumps(sound)
    yield text[:-2].encode()
    yield text.replace('"hi"', '"\ud800"').encode("utf-8", "surrogatepass")
    yield text.replace('": 2', '": 1e999').encode() if "2" in text else b"1e999"
    yield (text[:-1] + ',"temperature":NaN}').encode()
    first = next(iter(sound))
    yield f'{{"{first}":1,"{first}":2}}'.encode()
    for name in sound:
        yield json.dumps(
            {
                other: value
                for other, value in sound.items()
                if other != name and name not in OPTIONAL
            }
        ).encode()
        for value in BAD:
            yield json.dumps({**sound, name: value}).encode()
    yield json.dumps({**sound, "model": "no-such-model"}).encode()
    yield json.dumps({**sound, "model": ["x"]}).encode()


async def assert_refused(reply: httpx.Response, body: bytes) -> None:
    what = (reply.request.url.path, body[:200], reply.status_code, reply.text[:200])
    assert 400 <= reply.status_code < 500, what
    found = reply.json()
    message = found["error"]["message"] if "error" in found else found["message"]
    assert len(message) > 10, what


@pytest.mark.no_cover
async def test_malformed_bodies_on_every_route_are_refused_one_by_one() -> None:
    n_requests = 0
    async with serving(server=SMALL) as served, served.client() as client:
        with anyio.fail_after(60):
            for path in REQUESTS:
                for body in malformed(path):
                    await assert_refused(await client.post(path, content=body), body)
                    n_requests += 1
                assert (await client.post(path, json=REQUESTS[path])).status_code == 200, path
        await assert_idle(served)
    assert n_requests >= 200


async def assert_idle(served: Served) -> None:
    with anyio.fail_after(30):
        while served.kernel.info().n_in_flight:
            await anyio.sleep(0.01)


FIELDS = {
    "/v1/responses": [
        "input", "model", "instructions", "tools", "tool_choice", "text", "max_output_tokens", "temperature", "top_p", "stream",
        "store", "background", "previous_response_id", "conversation", "prompt", "metadata", "user",
    ],
    "/v1/chat/completions": [
        "messages", "model", "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "stop", "seed", "n",
        "logit_bias", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format", "stream", "stream_options",
        "guided_regex", "guided_json", "structured_outputs", "frequency_penalty", "repetition_penalty",
    ],
}  # fmt: skip


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.no_cover
async def test_absurd_values_in_every_field_never_break_the_server(path: str) -> None:
    async with serving(server=SMALL) as served, served.client() as client:
        with anyio.fail_after(60):
            for field in FIELDS[path]:
                for value in WRONG:
                    body = json.dumps({**REQUESTS[path], field: value}).encode()
                    reply = await client.post(path, content=body)
                    if (
                        reply.status_code != 200
                    ):  # null and some of the others are fine for some fields
                        await assert_refused(reply, body)
        await assert_idle(served)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "call",
        "messages",
        "prompt",
        "input",
        "model",
        "max_tokens",
        "stop",
        "tools",
        "tool_choice",
        "constraint",
        "sampling",
        "pid",
        "text",
        "texts",
        "n",
        "stream",
        "seed",
        "deadline_s",
    ]
)


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.no_cover
async def test_any_json_at_all_gets_an_answer_and_no_5xx(path: str) -> None:
    """Random JSON, and sound requests with random fields, from a thread of its own over one real connection."""
    async with serving(server=SMALL) as served:
        headers = {"Authorization": f"Bearer {served.token}"}

        def attack() -> None:
            with httpx.Client(
                base_url=served.url, headers=headers, trust_env=False, timeout=30
            ) as client:

                @settings(
                    max_examples=60,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                )
                @given(
                    ANY_JSON
                    | st.dictionaries(NAMES, ANY_JSON, max_size=3).map(
                        lambda more: {**REQUESTS[path], **more}
                    )
                )
                def throw(value: object) -> None:
                    body = json.dumps(value).encode("utf-8", "surrogatepass")
                    reply = client.post(path, content=body)
                    assert reply.status_code < 500, (body, reply.status_code, reply.text)

                throw()

        with anyio.fail_after(60):
            await anyio.to_thread.run_sync(attack)
        await assert_idle(served)
        async with served.client() as client:
            assert (await client.post(path, json=REQUESTS[path])).status_code == 200
