"""Runs a tool for an agent: in a worker thread or the event loop, within its timeout. It never raises for the tool."""

from functools import partial

import anyio
from anyio import to_thread

from aios.sdk.terminated import Terminated
from aios.sdk.tools import Tool, ToolOutcome, failure

AnyTool = Tool[..., object]


async def invoke(
    tool: AnyTool,
    arguments: str,
    *,
    max_bytes: int | None = None,
    threads: anyio.CapacityLimiter | None = None,
) -> ToolOutcome:
    """Run a tool on the JSON text that a model wrote; wrong arguments, exceptions and timeouts become outcomes.

    The result is cut at `max_bytes`, or at the tool's own limit when that is None. `threads` are those for plain functions; anyio's
    default ones when None.

    An async tool that runs out of time is cancelled. A plain function cannot be: its thread is left to itself and its
    result is dropped, also when the caller is cancelled.
    """
    with anyio.move_on_after(tool.timeout_s):
        if tool.is_async:
            return await _awaited(tool, arguments, max_bytes)
        run = partial(tool.call_now, arguments, max_bytes=max_bytes)
        return await to_thread.run_sync(run, abandon_on_cancel=True, limiter=threads)
    return ToolOutcome(f"error: {tool.name} did not end within {tool.timeout_s} s", is_error=True)


async def _awaited(tool: AnyTool, arguments: str, max_bytes: int | None) -> ToolOutcome:
    try:
        result = await tool.call_async(tool.arguments(arguments))
        return tool.outcome(result, max_bytes=max_bytes)
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge to a tool's code: its bug is the model's news
        return failure(error)
