"""uvicorn's HTTP/1.1 connection with limits on what it may cost before there is a request.

The parser takes a head of any size at any pace; here a connection that is too slow, too large or one too many is told
so and closed.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from aios.config import ServerConfig
from aios.server.faults import raw_response, status_response

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Transport  # noqa: TID251 - types of uvicorn's contract

MAX_WAITING = 32
"""Requests that one connection may send in advance; a pause in reading would hide that the client has left."""


class _Timer(Protocol):
    def cancel(self) -> None: ...


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `limits` is set by `guarded`."""

    limits: ClassVar[ServerConfig] = ServerConfig()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: "AbstractEventLoop | None" = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._inner = self.app
        self._running: RequestResponseCycle | None = None
        """The last that was begun. Uvicorn's `cycle` is the last that came, and may wait for the reply of this one."""
        self._timer: _Timer | None = None
        self._has_data = False
        self._has_progress = False
        self._n_idle_bytes = 0
        self._n_head_bytes = 0
        self.idle_since_s = 0.0
        self.is_let_go = False

    def connection_made(self, transport: "Transport") -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.idle_since_s = self.loop.time()
        if len(self.connections) > self.limits.max_connections and not self._make_room():
            self._refuse(
                503, f"{self.limits.max_connections} connections are open; try again later"
            )
        else:
            self._start_timer()

    def _make_room(self) -> bool:
        """Close the connection that asks for nothing for the longest time: who holds many of them keeps nobody out."""
        others = [each for each in self.connections if isinstance(each, GuardedProtocol)]
        idle = [each for each in others if each is not self and each.is_idle]
        if idle:
            oldest = min(idle, key=lambda each: each.idle_since_s)
            oldest.is_let_go = True
            oldest.transport.abort()  # to close it would wait until the peer has read all
        return bool(idle)

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is under way; one of which only a part of the head has come is none yet."""
        is_done = self._running is None or (self._running.response_complete and not self.pipeline)
        return not self.is_let_go and (is_done or self.transport.is_closing())

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._has_data = True
        self._has_progress = False
        super().data_received(data)
        # A head, a trailer or a chunk's extension may go on for ever without telling the parser's owner anything.
        self._n_idle_bytes = 0 if self._has_progress else self._n_idle_bytes + len(data)
        if max(self._n_idle_bytes, self._n_head_bytes) > 2 * self.limits.max_header_bytes:
            self._refuse(431, self._head_message())

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP/1.1 request: " + msg)

    def on_message_begin(self) -> None:
        self._n_head_bytes = 0
        self._start_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._n_head_bytes += len(name) + len(value)
        if self._n_head_bytes <= self.limits.max_header_bytes:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._has_progress = True
        is_large = self._n_head_bytes + len(self.url) > self.limits.max_header_bytes
        self.app = self._refuse_head if is_large else self._inner
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle
        if len(self.pipeline) > MAX_WAITING:
            self._refuse(429, f"{MAX_WAITING} requests wait for their answers on this connection")
        elif self.pipeline:
            self.flow.resume_reading()  # else nobody would see that the client leaves

    def on_body(self, body: bytes) -> None:
        self._has_progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_progress = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running, _ = self.pipeline[-1]
        super().on_response_complete()
        self.idle_since_s = self.loop.time()

    async def _refuse_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = status_response(431, self._head_message(), scope["path"])
        response.headers["connection"] = "close"
        await response(scope, receive, send)

    def _head_message(self) -> str:
        return f"the head of the request is over {self.limits.max_header_bytes} bytes"

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.limits.header_timeout_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._has_data:
            self._refuse(408, f"the head did not arrive within {self.limits.header_timeout_s} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Say why and close; a reply that is under way is cut off instead."""
        if self.transport.is_closing():
            return
        cycle = self._running
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(raw_response(status, message))
        self._disconnect()
        self.transport.close()

    def _disconnect(self) -> None:
        """Tell what runs that nobody hears its reply, and that its request may never end."""
        cycle = self._running
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()


def guarded(limits: ServerConfig) -> type[GuardedProtocol]:
    """The protocol with these limits."""
    return type("Guarded", (GuardedProtocol,), {"limits": limits})
