"""A served kernel for tests: real sockets, a real kernel, the scripted engine."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx

from aios.abi.calls import Chat
from aios.abi.types import Message, Role
from aios.config import Config, Home, KernelConfig, ServerConfig
from aios.configload import Loaded
from aios.engine.base import Engine
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.discovery import unix_path_of
from aios.server.daemon import open_server


@dataclass(frozen=True)
class Served:
    """A kernel that listens."""

    kernel: Kernel
    home: Home
    token: str

    @property
    def path(self) -> str:
        """Of the Unix socket."""
        path = unix_path_of(self.kernel.urls[0])
        assert path is not None
        return path

    @property
    def url(self) -> str:
        """Of the HTTP server."""
        return self.kernel.urls[-1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        """An HTTP client with a token."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30)


@asynccontextmanager
async def serving(
    engine: Engine | None = None,
    *,
    engines: Mapping[str, Engine] | None = None,
    server: ServerConfig = ServerConfig(port=0),
    limits: KernelConfig = KernelConfig(),
    http: bool = True,
) -> AsyncIterator[Served]:
    """Serve a kernel in a short-named home; at the end nothing may be left over."""
    with short_folder() as folder:
        home = Home(folder)
        loaded = Loaded(Config(server=server, kernel=limits), home, folder / "config.toml")
        engines = engines or {"scripted": engine or ScriptedEngine()}
        async with open_server(loaded, http=http, engines=engines) as kernel:
            yield Served(kernel, home, kernel.owner_token)
            kernel.check_invariants()
        assert not kernel.journal.statistics().n_open, "a call was not settled"
        assert all(lane.n_granted == 0 for lane in kernel.scheduler.statistics().values())


def short_folder() -> AbstractContextManager[Path]:
    """A folder with a path short enough for a socket, gone at the end."""
    return scratch_folder("t")


def slow_engine(*, n_tokens: int = 100_000, n_slots: int = 4) -> ScriptedEngine:
    """An engine whose generations go on until somebody ends them."""
    script = Script(answer_tokens=n_tokens, token_delay_s=0.002)
    return ScriptedEngine(script=script, n_slots=n_slots, window_tokens=200_000)


def chat(text: str = "hello", *, max_tokens: int | None = 8) -> Chat:
    """A small chat."""
    return Chat(messages=(Message(Role.USER, text),), max_tokens=max_tokens)


async def until_idle(kernel: Kernel) -> None:
    """Return when no call is in flight."""
    with anyio.fail_after(30):
        while kernel.info().n_in_flight:
            await anyio.sleep(0.005)


async def until_running(kernel: Kernel, n_calls: int = 1) -> None:
    """Return when that many calls hold turns."""
    with anyio.fail_after(30):
        while sum(lane.n_granted for lane in kernel.scheduler.statistics().values()) < n_calls:
            await anyio.sleep(0.005)
