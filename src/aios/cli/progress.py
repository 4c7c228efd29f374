"""How far long work is, on a terminal: bars of bytes that this command moves, and of work that the kernel does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aios.abi.call import Answer, Call
from aios.abi.gate import Advance
from aios.cli.top import make_console
from aios.sdk.blocking import BlockingGate

A = TypeVar("A", bound=Answer)

Moved = Callable[[int], None]
"""So many more bytes were moved."""


@contextmanager
def bytes_bar(label: str, total_bytes: int | None, *, shows: bool) -> Iterator[Moved]:
    """A bar of bytes on stderr, if that is a terminal and `shows`; `total_bytes` None is not known."""
    from rich.progress import (  # noqa: PLC0415 - start-up time: 60 ms, for long work only
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = make_console(is_error=True)
    with Progress(*columns, console=console, disable=not (shows and console.is_terminal)) as bar:
        task = bar.add_task(label, total=total_bytes)
        yield lambda n_bytes: bar.advance(task, n_bytes)


def attended(gate: BlockingGate, call: Call[A], *, shows: bool) -> A:
    """Make a long call and show how far the kernel is."""
    with advance_bar(shows=shows) as draw, gate.open_call(call) as frames:
        for frame in frames:
            if isinstance(frame, Advance):
                draw(frame.what, frame.n_done, frame.n_total)
        return frames.result().value


@contextmanager
def advance_bar(*, shows: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar of work on stderr, if that is a terminal and `shows`."""
    from rich.progress import (  # noqa: PLC0415 - start-up time: 60 ms, for long work only
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = make_console(is_error=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not (shows and console.is_terminal),
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, n_done, n_total: bar.update(
            task, description=what, completed=n_done, total=n_total
        )
