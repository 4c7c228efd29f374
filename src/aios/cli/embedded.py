"""A kernel inside a command, for `run` and `chat` when none runs.

It listens on the home's socket, so `aios ps`, `top`, `logs` and `kill` in another terminal work against it. Programs that
other commands start on it keep it alive: the command stays until they have ended.
"""

import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio

from aios.abi.calls import Ps
from aios.abi.gate import Gate
from aios.abi.types import Kind, Pid, ProcessInfo
from aios.cli.attend import Interrupts
from aios.cli.ending import SIGNAL_BASE
from aios.cli.foreground import stay
from aios.cli.orders import Order
from aios.cli.readiness import check_engine
from aios.configload import Loaded
from aios.errors import Conflict
from aios.kernel.kernel import Kernel
from aios.server.collector import settle_collector
from aios.server.daemon import open_server

POLL_S = 0.1


def run_embedded(order: Order, loaded: Loaded) -> int | None:
    """Run on a kernel of our own; None when another command was quicker to become the kernel of this home.

    Raises:
        EngineUnavailable: The embedded engine is not installed.
        ModelMissing: Its model is not there.
    """
    check_engine(loaded, may_ask=not order.as_json)
    return anyio.run(_run, order, loaded, backend_options={"use_uvloop": True})


async def _run(order: Order, loaded: Loaded) -> int | None:
    async with anyio.create_task_group() as tasks:
        interrupts = Interrupts(tasks.cancel_scope)
        await tasks.start(interrupts.watch)
        code = await _serve_and_run(order, loaded, interrupts)
        tasks.cancel_scope.cancel()
        return code
    return SIGNAL_BASE + interrupts.number


async def _serve_and_run(order: Order, loaded: Loaded, interrupts: Interrupts) -> int | None:
    async with AsyncExitStack() as stack:
        try:
            kernel = await stack.enter_async_context(open_server(loaded, http=False, embedded=True))
        except Conflict:
            return None
        settle_collector()
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(_take_shutdown, kernel, interrupts)
        code = await _run_on(kernel, order, interrupts)
        tasks.cancel_scope.cancel()
        return code
    return SIGNAL_BASE + interrupts.number


async def _run_on(kernel: Kernel, order: Order, interrupts: Interrupts) -> int:
    gate = kernel.init_gate()
    names: dict[Pid, str] = {}
    for call in order.calls():
        spawned = (await gate.call(call)).value
        names[spawned.pid] = spawned.name
        order.tell_started(spawned.pid, spawned.name)
    code = await stay(gate, order, names, interrupts)
    if kernel.stopping.is_set():
        return code
    if interrupts.number:  # it was meant for our own programs; the next one cancels all of this
        await wait_for_others(gate, order.note)
        return code
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_when_interrupted, tasks.cancel_scope, interrupts)
        await wait_for_others(gate, order.note)
        tasks.cancel_scope.cancel()
        return code
    return SIGNAL_BASE + interrupts.number


async def _cancel_when_interrupted(scope: anyio.CancelScope, interrupts: Interrupts) -> None:
    await interrupts.first.wait()
    scope.cancel()


async def _take_shutdown(kernel: Kernel, interrupts: Interrupts) -> None:
    """`aios shutdown` ends the command as SIGTERM does."""
    await kernel.stopping.wait()
    interrupts.take(signal.SIGTERM)


async def wait_for_others(gate: Gate, tell: Callable[[str], None]) -> None:
    """Return when no program runs on this kernel any more and no guest waits for an answer."""
    is_told = False
    while others := [p for p in (await gate.call(Ps())).value.processes if _is_at_work(p)]:
        if not is_told:
            listed = ", ".join(f"{p.name} ({p.pid})" for p in others)
            tell(f"still running on this kernel: {listed}; staying until then (Ctrl-C ends them)")
            is_told = True
        await anyio.sleep(POLL_S)
    if is_told:
        await anyio.sleep(POLL_S)  # their commands are being told the end


def _is_at_work(process: ProcessInfo) -> bool:
    match process.kind:
        case Kind.PROGRAM | Kind.TASK:
            return True
        case Kind.GUEST:
            return bool(process.activity)
        case _:
            return False
