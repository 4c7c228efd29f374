"""The part of `program.py` that needs an event loop."""

import signal
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from aios.sdk.client import connect
from aios.sdk.program import flush, result_text
from aios.sdk.terminated import EXIT_TERMINATED

AsyncMain = Callable[..., Awaitable[object]]


def run_async(main: AsyncMain, args: tuple[object, ...], kwargs: dict[str, object]) -> int:
    """Run an async `main` to its end; returns the exit status."""
    return anyio.run(_serve, main, args, kwargs)


async def _serve(main: AsyncMain, args: tuple[object, ...], kwargs: dict[str, object]) -> int:
    error: BaseException
    scope = anyio.CancelScope()
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(_cancel_on_sigterm, scope)
            with scope:
                await _run_main(main, args, kwargs)
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = group if len(group.exceptions) > 1 else group.exceptions[0]
    else:
        return EXIT_TERMINATED if scope.cancelled_caught else 0
    raise error  # main's own, with its own cause: a traceback without our task group in it


async def _run_main(main: AsyncMain, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    async with connect() as client:
        text = result_text(await main(client, *args, **kwargs))
        flush()
        await client.exit(0, text)


async def _cancel_on_sigterm(
    scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """Outside of what it cancels: a second one must not cut the clean-up short."""
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
