"""`aios serve`: one kernel on its sockets, from the lock on its home to the last reply.

claim home -> open kernel -> Unix socket -> HTTP -> publish the address -> (signal | shutdown) -> drain -> close
"""

import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.abc

from aios import __version__
from aios.config import ApprovalsConfig, Config
from aios.configload import Loaded
from aios.engine.base import Engine
from aios.kernel.clock import Clock
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.recovery import NO_JOURNAL
from aios.sdk.discovery import UNIX_PREFIX, KernelAddress
from aios.server.claim import Claim, claim_home
from aios.server.collector import settle_collector
from aios.server.native import serve_unix

INTERRUPTED_STATUS = 130
"""128 + SIGINT, as shells have it."""
MAX_OPEN_FILES = 65_536


async def serve(
    loaded: Loaded,
    *,
    http: bool = True,
    embedded: bool = False,
    on_ready: Callable[[Kernel], None] | None = None,
) -> None:
    """Serve a kernel until SIGTERM, SIGINT, SIGHUP or the call `shutdown`; then drain and return.

    A second SIGINT ends the operating-system process at once. `on_ready` is told when calls are taken.

    Raises:
        Conflict: Another kernel serves this `AIOS_HOME`, or the port is taken.
        ConfigError: The configuration cannot be used.
    """
    _allow_many_files()
    stop, claims = anyio.Event(), list[tuple[Kernel, Claim]]()
    with (
        _bare_errors(),
        anyio.open_signal_receiver(*_end_signals()) as signals,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_attend_signals, signals, stop, claims)
            opened = _open(loaded, http=http, embedded=embedded, is_durable=not embedded)
            async with opened as (kernel, claim):
                claims.append((kernel, claim))
                settle_collector()
                tasks.start_soon(_forward, stop, kernel)
                if on_ready is not None:
                    on_ready(kernel)
                await kernel.stopping.wait()
                await kernel.drain(loaded.config.server.drain_s)
            tasks.cancel_scope.cancel()


def _end_signals() -> list[signal.Signals]:
    """What ends the kernel: with a closed terminal too, unless whoever started it (nohup) said otherwise."""
    ends = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ends.append(signal.SIGHUP)
    return ends


@asynccontextmanager
async def open_server(
    loaded: Loaded,
    *,
    http: bool = True,
    embedded: bool = False,
    engines: Mapping[str, Engine] | None = None,
    clock: Clock | None = None,
    is_durable: bool = False,
) -> AsyncIterator[Kernel]:
    """A served kernel for the length of a block, for commands that embed one and for tests; `kernel.urls` has its addresses.

    Args:
        loaded: Configuration and home.
        http: Listen on TCP, too.
        embedded: Tell others that the kernel ends with this command.
        engines: As for `open_kernel`.
        clock: As for `open_kernel`.
        is_durable: As for `open_kernel`.

    Raises:
        Conflict: Another kernel serves this `AIOS_HOME`, or the port is taken.
        ConfigError: The configuration cannot be used.
    """
    with _bare_errors():
        opened = _open(
            loaded,
            http=http,
            embedded=embedded,
            engines=engines,
            clock=clock,
            is_durable=is_durable,
        )
        async with opened as (kernel, _):
            yield kernel


@asynccontextmanager
async def _open(
    loaded: Loaded,
    *,
    http: bool,
    embedded: bool,
    engines: Mapping[str, Engine] | None = None,
    clock: Clock | None = None,
    is_durable: bool = False,
) -> AsyncIterator[tuple[Kernel, Claim]]:
    config, home = loaded.config, loaded.home
    _forbid_core_dumps()
    async with (
        claim_home(home) as claim,
        open_kernel(
            config, home, engines=engines, clock=clock, embedded=embedded, is_durable=is_durable
        ) as kernel,
        anyio.create_task_group() as tasks,
    ):
        kernel.set_owner_token(claim.token)
        if not embedded:
            kernel.warnings.extend((await kernel.launcher.find_walls()).missing)
            if not config.journal.is_on:
                kernel.warnings.append(NO_JOURNAL)
        await tasks.start(_serve_native, kernel, claim, config)
        kernel.urls.append(f"{UNIX_PREFIX}{claim.socket}")
        if config.approvals.webhook_url:
            _start_webhook(kernel, config.approvals, tasks)
        async with _web_server(kernel, config, is_wanted=http):
            claim.publish(_address(kernel))
            kernel.begin()
            try:
                yield kernel, claim
            finally:
                claim.withdraw()
                with anyio.CancelScope(shield=True):
                    await kernel.drain(0)
        tasks.cancel_scope.cancel()


def _start_webhook(kernel: Kernel, config: ApprovalsConfig, tasks: anyio.abc.TaskGroup) -> None:
    from aios.server.webhook import Webhook  # noqa: PLC0415 - start-up time: httpx takes 60 ms

    secret = os.environ.get(config.webhook_secret_env, "")
    webhook = Webhook(config.webhook_url, secret, kernel.clock)
    kernel.approvals.watchers.append(webhook.put)
    tasks.start_soon(webhook.run)


async def _serve_native(
    kernel: Kernel,
    claim: Claim,
    config: Config,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    await serve_unix(
        kernel,
        claim.socket,
        max_connections=min(config.server.max_connections, _half_of_files()),
        task_status=task_status,
    )


@asynccontextmanager
async def _web_server(kernel: Kernel, config: Config, *, is_wanted: bool) -> AsyncIterator[None]:
    if not is_wanted:
        yield
        return
    from aios.server.web import WebServer, listen, url_of  # noqa: PLC0415 - who embeds a kernel does not pay for HTTP

    with listen(config.server) as listener:
        kernel.urls.append(url_of(listener))
        if config.server.allow_remote:
            kernel.warnings.append(f"{kernel.urls[-1]} is open to other machines and has no TLS")
        server = WebServer(kernel, config.server, listener)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run_until_closed)
            try:
                yield
            finally:
                server.close()


def _address(kernel: Kernel) -> KernelAddress:
    info = kernel.info()
    return KernelAddress(
        info.os_pid, info.urls, info.embedded, info.started_unix_s, version=__version__
    )


async def _attend_signals(
    signals: AsyncIterator[signal.Signals],
    stop: anyio.Event,
    claims: list[tuple[Kernel, Claim]],
) -> None:
    async for number in signals:
        if stop.is_set() and number == signal.SIGINT:
            _leave_at_once(claims)
        stop.set()


async def _forward(stop: anyio.Event, kernel: Kernel) -> None:
    await stop.wait()
    kernel.request_shutdown()


def _leave_at_once(claims: list[tuple[Kernel, Claim]]) -> None:
    """End without waiting for anything, but leave no programs and no files behind."""
    for kernel, claim in claims:
        for process in kernel.table:
            if process.on_kill is not None:
                process.on_kill()
        claim.withdraw()
    os._exit(INTERRUPTED_STATUS)


def _allow_many_files() -> None:
    """Raise our own limit of open files: each connection and each program takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _half_of_files() -> int:
    """So many files as connections may take: the rest is for the owner, the database and the programs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft // 2


def _forbid_core_dumps() -> None:
    """The owner's token and what programs are given lie in our memory: no crash may write it to disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


@contextmanager
def _bare_errors() -> Iterator[None]:
    """A task group wraps what goes wrong in it; a single error is let out as it was raised."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, BaseExceptionGroup):
            raise
        raise error from error.__cause__
