"""An endpoint that does what it is told to, the worst included."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.engine.jobs import chat, run
from tests.engine.remote.serving import serving

from aios.config import EngineConfig
from aios.engine.base import Delta
from aios.engine.remote.openai import OpenAIEngine
from aios.errors import AiosError

KEY = "sk-secret-0123456789"
STREAM = "text/event-stream"

Reply = Callable[[], Response]


@dataclass
class Seen:
    """A request as it came."""

    headers: dict[str, str]
    body: dict[str, object]


@dataclass
class BadEndpoint:
    """Gives `replies` in their order, the last one again and again.

    Attributes:
        gone: Set each time that a client went away before the end of a stream.
    """

    replies: list[Reply] = field(default_factory=list)
    models: Reply = field(default_factory=lambda: lambda: JSONResponse({"data": [{"id": "m"}]}))
    seen: list[Seen] = field(default_factory=list)
    gone: anyio.Event = field(default_factory=anyio.Event)

    def app(self) -> Starlette:
        """The ASGI application; every POST is answered by the replies."""
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/{path:path}", self._post, methods=["POST", "GET"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        self.seen.append(Seen(dict(request.headers), {}))
        return self.models()

    async def _post(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(status_code=404)
        body = await request.body()
        self.seen.append(Seen(dict(request.headers), json.loads(body) if body else {}))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply()

    @property
    def posts(self) -> list[Seen]:
        """The requests that were no question for the models."""
        return [seen for seen in self.seen if seen.body]

    def silent_after(self, *events: str) -> Reply:
        """Events, and then nothing for ever."""

        async def body() -> AsyncIterator[str]:
            try:
                for event in events:
                    yield event
                await anyio.sleep_forever()
            finally:
                self.gone.set()

        return lambda: StreamingResponse(body(), media_type=STREAM)


def status(
    number: int, message: str = "", headers: dict[str, str] | None = None, /, **error: object
) -> Reply:
    """A refusal in OpenAI's shape."""
    return lambda: JSONResponse({"error": {"message": message, **error}}, number, headers)


def plain(number: int, body: str, media_type: str) -> Reply:
    """Any answer."""
    return lambda: Response(body, number, media_type=media_type)


def stream(*events: str, **headers: str) -> Reply:
    """A stream that ends in good order."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: StreamingResponse(iter_async(events), media_type=STREAM, headers=shown)


def dropped_after(*events: str) -> Reply:
    """Events, and then the connection is cut."""

    async def body() -> AsyncIterator[str]:
        for event in events:
            yield event
        raise ConnectionError("cut on purpose")

    return lambda: StreamingResponse(body(), media_type=STREAM)


def flood(chunk: bytes, n: int) -> Reply:
    """The same bytes again and again, in one line."""

    def body() -> Iterator[bytes]:
        yield b"data: "
        for _ in range(n):
            yield chunk

    return lambda: StreamingResponse(body(), media_type=STREAM)


async def iter_async(events: tuple[str, ...]) -> AsyncIterator[str]:
    """The events, one by one."""
    for event in events:
        yield event


def text(content: str, **choice: object) -> str:
    """An event with a piece of text."""
    return event(choices=[{"index": 0, "delta": {"content": content}, **choice}])


def end(reason: str = "stop", **usage: object) -> str:
    """The end of a stream: reason, usage, done."""
    events = [event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])]
    if usage:
        events.append(event(choices=[], usage=usage))
    return "".join(events) + "data: [DONE]\n\n"


def event(**fields: object) -> str:
    """An event with this JSON."""
    return f"data: {json.dumps(fields)}\n\n"


def config_for(url: str, **knobs: object) -> EngineConfig:
    """A configuration for an endpoint at `url`."""
    fields = {"base_url": f"{url}/v1", "timeout_s": 5.0, "n_slots": 4, "n_retries": 0, **knobs}
    return msgspec.convert({"kind": "openai", **fields}, EngineConfig)


@asynccontextmanager
async def engine_at(
    endpoint: BadEndpoint, key: str | None = KEY, /, **knobs: object
) -> AsyncIterator[OpenAIEngine]:
    """A started engine that speaks to the endpoint."""
    async with serving(endpoint.app()) as url:
        engine = OpenAIEngine(name="test", config=config_for(url, **knobs), api_key=key)
        try:
            await engine.start()
            yield engine
        finally:
            await engine.aclose()


async def failure(reply: Reply, **knobs: object) -> AiosError:
    """The error that a generation ends in."""
    with anyio.fail_after(30):
        async with engine_at(BadEndpoint([reply]), **knobs) as engine:
            with pytest.raises(AiosError) as caught:
                await run(engine, chat())
            assert engine.statistics().n_running == 0
            assert engine.statistics().extra["n_waiting"] == 0
    assert KEY not in f"{caught.value} {caught.value.hint} {caught.value!r}"
    return caught.value


async def cancelled_read(read: Callable[[], Awaitable[Delta]]) -> None:
    """Cancel a read while it waits for the network."""

    async def reader() -> None:
        await read()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A TCP server that answers every connection with the same bytes and then says nothing; gives its URL."""

    async def serve(client: anyio.abc.SocketStream) -> None:
        async with client:
            await client.send(answer)
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django here
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}"
        tasks.cancel_scope.cancel()
