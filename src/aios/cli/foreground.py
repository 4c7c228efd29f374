"""A `run` in the foreground: its programs' output, the live table if asked for, their results, one exit code."""

from collections import deque
from collections.abc import Mapping

import anyio
from msgspec.structs import replace

from aios.abi.gate import Gate, Progress
from aios.abi.types import Exit, Pid
from aios.cli.attend import Attendance, Interrupts
from aios.cli.ending import SIGNAL_BASE
from aios.cli.gates import open_async_gate
from aios.cli.lines import LinePrinter
from aios.cli.orders import Order
from aios.sdk.address import Address

MAX_KEPT_FRAMES = 100_000
"""Lines that `--top` keeps for after the table; the oldest go."""


async def stay_on(address: Address, order: Order, names: Mapping[Pid, str]) -> int:
    """Stay with processes of a kernel elsewhere; return the exit code."""
    async with anyio.create_task_group() as tasks:
        interrupts = Interrupts(tasks.cancel_scope)
        await tasks.start(interrupts.watch)
        async with open_async_gate(address) as gate:
            code = await stay(gate, order, names, interrupts)
        tasks.cancel_scope.cancel()
        return code
    return SIGNAL_BASE + interrupts.number


async def stay(gate: Gate, order: Order, names: Mapping[Pid, str], interrupts: Interrupts) -> int:
    """Stay with processes until they have ended; return the exit code."""
    printer = LinePrinter(names, splits_streams=True, as_json=order.as_json)
    ends: dict[Pid, Exit] = {}
    attendance = Attendance(gate, names, interrupts, printer.write, ends.__setitem__)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_tell_interrupt, interrupts, order)
        if order.shows_top and not order.as_json:
            await _attend_with_table(attendance)
        else:
            await attendance.attend()
        tasks.cancel_scope.cancel()
    for pid, name in names.items():
        order.tell_end(pid, name, ends[pid])
    if interrupts.number:
        return SIGNAL_BASE + interrupts.number
    return next((ends[pid].status for pid in names if ends[pid].status), 0)


async def _attend_with_table(attendance: Attendance) -> None:
    """Show the table instead of the lines, and the lines when all is over."""
    from aios.cli.watch import LiveTable  # noqa: PLC0415 - start-up time: rich, only for --top

    table, on_frame = LiveTable(attendance.gate, attendance.names), attendance.on_frame
    kept: deque[Progress] = deque(maxlen=MAX_KEPT_FRAMES)
    async with anyio.create_task_group() as tasks:
        if table.is_live:
            tasks.start_soon(table.keep_drawing)
            attendance = replace(attendance, on_frame=kept.append)
        else:
            tasks.start_soon(table.keep_looking)
        await attendance.attend()
        tasks.cancel_scope.cancel()
    await table.finish()
    for frame in kept:
        on_frame(frame)


async def _tell_interrupt(interrupts: Interrupts, order: Order) -> None:
    await interrupts.first.wait()
    order.note("ending the processes; Ctrl-C again leaves at once")
