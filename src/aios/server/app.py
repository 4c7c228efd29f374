"""The kernel over HTTP: the native system calls as JSON, and the OpenAI routes.

    limits -> host -> token -> process -> route -> system call        every route but /health and /aios/files wants a token

A link to a file is its own leave (`links.py`). Whoever speaks here is a process; all that a route does is a system call of it.
"""

import logging

import anyio
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aios.abi.call import Call
from aios.abi.calls import Ps
from aios.abi.every import AnyAnswer
from aios.abi.links import LINK_ROUTE
from aios.abi.wire import call_from_json, frame_to_json
from aios.config import ServerConfig
from aios.errors import AiosError, InvalidCall, KernelBug
from aios.kernel.kernel import Kernel
from aios.server.approvals import ApprovalRoutes
from aios.server.auth import check_host, gate_for
from aios.server.faults import JSON_TYPE, fault_response, status_response
from aios.server.held import Families
from aios.server.limits import MAX_CHECKS, Exchange, read_json
from aios.server.links import LinkRoutes
from aios.server.openai_chat import OpenAIRoutes
from aios.server.openapi import document
from aios.server.responses import ResponsesRoutes
from aios.server.stream import EVENTS, CallStream, FrameEvents, Lines, make_call

OPEN_PATHS = frozenset({"/health"})
_log = logging.getLogger(__name__)


def make_app(kernel: Kernel, config: ServerConfig) -> Starlette:
    """The application that serves a kernel over HTTP."""
    native = NativeRoutes(kernel, config)
    app = Starlette(
        routes=[
            *native.routes(),
            *ApprovalRoutes(config).routes(),
            *LinkRoutes(kernel).routes(),
            *OpenAIRoutes(kernel, config).routes(),
            *ResponsesRoutes(kernel, config).routes(),
        ],
        middleware=[Middleware(Edge, kernel=kernel, config=config)],
        exception_handlers={HTTPException: _http_error, AiosError: _aios_error},
    )
    app.router.redirect_slashes = False
    return app


class Edge:
    """What every request passes first and last: who it is, and that nothing that goes wrong goes further."""

    def __init__(self, app: ASGIApp, *, kernel: Kernel, config: ServerConfig) -> None:
        self._app = app
        self._kernel = kernel
        self._config = config
        self._families = Families(kernel)
        self._checks = anyio.CapacityLimiter(MAX_CHECKS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise InvalidCall(f"{scope['type']} is not served", hint="use HTTP")
        exchange = Exchange(scope, receive, send)
        try:
            self._admit(scope, exchange)
            await self._app(scope, exchange.receive, exchange.send)
            exchange.check_sent()
        except ClientDisconnect:
            return  # nobody is there to be told
        except AiosError as error:
            await self._fail(error, scope, exchange)
        except Exception as error:  # noqa: BLE001 - the edge: a bug of ours ends this request only
            _log.exception("a route failed")
            bug = KernelBug(f"{type(error).__name__}: {error}", hint="please report it")
            await self._fail(bug, scope, exchange)
        finally:
            exchange.share.close()

    def _admit(self, scope: Scope, exchange: Exchange) -> None:
        request = Request(scope)
        if not self._config.allow_remote:
            check_host(request.headers, self._config.host)
        if scope["path"] not in OPEN_PATHS and not scope["path"].startswith(LINK_ROUTE):
            gate = request.state.gate = gate_for(self._kernel, request.headers)
            exchange.share = request.state.share = self._families.share_of(gate.pid)
            request.state.checks = self._checks

    async def _fail(self, error: AiosError, scope: Scope, exchange: Exchange) -> None:
        if exchange.is_started:
            raise error  # too late for a status: the server cuts the connection, which a client notices
        await fault_response(error, scope["path"])(scope, exchange.receive, exchange.send)


class NativeRoutes(Struct, frozen=True):
    """The system calls as JSON, and what a client wants to know before it makes any."""

    kernel: Kernel
    limits: ServerConfig

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/aios/call", self.call, methods=["POST"]),
            Route("/aios/stream", self.stream, methods=["POST"]),
            Route("/aios/ps", self.ps, methods=["GET"]),
        ]

    async def health(self, _: Request) -> Response:
        """`GET /health`: whether calls are taken; no more, for anybody may ask."""
        if self.kernel.is_stopping:
            return Response(b'{"status":"stopping"}', 503, media_type=JSON_TYPE)
        return Response(b'{"status":"ready"}', media_type=JSON_TYPE)

    async def openapi(self, _: Request) -> Response:
        """`GET /openapi.json`."""
        return Response(document(), media_type=JSON_TYPE)

    async def call(self, request: Request) -> Response:
        """`POST /aios/call`: one call, one frame with its end."""
        return await self._answer(request, await self._read(request))

    async def stream(self, request: Request) -> ASGIApp:
        """`POST /aios/stream`: one call, its frames as they come: lines, or events if the client accepts those."""
        call = await self._read(request)
        wants_events = EVENTS in request.headers.get("accept", "")
        return CallStream(request.state.gate, call, FrameEvents() if wants_events else Lines())

    async def ps(self, request: Request) -> Response:
        """`GET /aios/ps?all=true`: the call `ps`, for people with curl."""
        wanted = request.query_params.get("all", "false")
        if wanted not in ("true", "false"):
            raise InvalidCall("`all` is true or false - at `$.all`", hint="/aios/ps?all=true")
        return await self._answer(request, Ps(all=wanted == "true"))

    async def _read(self, request: Request) -> Call[AnyAnswer]:
        call: Call[AnyAnswer] = call_from_json(await read_json(request, self.limits))
        return call

    async def _answer(self, request: Request, call: Call[AnyAnswer]) -> Response:
        result = await make_call(request, request.state.gate, call)
        return Response(frame_to_json(result), media_type=JSON_TYPE)


async def _aios_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AiosError)
    return fault_response(error, request.scope["path"])


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this path", 405: "this path has another method"}
    message = words.get(error.status_code, error.detail)
    path = request.scope["path"]
    response = status_response(error.status_code, f"{message}: {request.method} {path[:200]}", path)
    response.headers.update(error.headers or {})
    return response
