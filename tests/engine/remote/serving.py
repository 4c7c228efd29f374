"""A real HTTP server on a loopback port, for as long as a block lasts."""

import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp


class Server(uvicorn.Server):
    """uvicorn that leaves signals alone and stops at once."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level=logging.CRITICAL,
            access_log=False,
        )
        super().__init__(config)
        self.closing = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.closing.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # As uvicorn's own, without its sleep of 0.1 s.
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for task in list(self.server_state.tasks):
            task.cancel()
        while self.server_state.tasks:
            await checkpoint()

    async def run_until_closed(self, listener: socket.socket) -> None:
        """Serve until `closing`, cancelled or not: a server that is cut off leaves its sockets in the event loop."""
        with anyio.CancelScope(shield=True):
            await self.serve([listener])


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve `app`; gives the URL. Requests that still run at the end are cut off."""
    # Without the protocol's number asyncio leaves Nagle's algorithm on, which costs 40 ms a reply.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on clients can connect, so nobody has to wait for the server
        server = Server(app)
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run_until_closed, listener)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            except Exception as error:  # noqa: BLE001 - raised below, outside the group that would wrap it
                failure = error
            finally:
                server.closing.set()
        if failure is not None:
            raise failure


def closed_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
