"""The verb `top`: the live process table."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live

from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import write_json
from aios.cli.table import SORT_KEYS, Screen, Snapshot, SortKey, is_shown
from aios.sdk.blocking import Client

FOOTER = "q quit   sort: r ran, w waited, t tokens, p pid, n name   a ended ones too"
KEYS: dict[str, SortKey] = {"r": "ran", "w": "waited", "t": "tokens", "p": "pid", "n": "name"}


@click.command(
    epilog=examples(
        "aios top", "aios top --once --sort waited", "aios top --json --interval 5 >> usage.jsonl"
    )
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, print and end.")
@click.option(
    "--sort",
    type=click.Choice(SORT_KEYS),
    default="ran",
    show_default=True,
    help="What comes first.",
)
@click.option("-a", "--all", "with_ended", is_flag=True, help="Also processes that have ended.")
@json_option
def top(*, interval_s: float, once: bool, sort: SortKey, with_ended: bool, as_json: bool) -> None:
    """Watch processes and engines.

    IN, CACHED and OUT count tokens; CACHED ones were not computed again. TOK/S is the speed while a process held turns.
    WAITED and RAN are the seconds that its calls waited for turns and held them; PREEMPT counts turns taken away.
    """
    with connect() as client:
        look = _Look(client, with_ended=with_ended)
        screen = Screen(sort)
        if once or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _print(look, screen, None if once else interval_s, as_json=as_json)
        else:
            _watch(look, screen, interval_s)


class _Look:
    """Takes snapshots."""

    def __init__(self, client: Client, *, with_ended: bool) -> None:
        self._client = client
        self.with_ended = with_ended

    def __call__(self) -> Snapshot:
        processes = self._client.ps(include_ended=self.with_ended)
        info = self._client.info()
        return Snapshot(info, tuple(p for p in processes if is_shown(p)))


def _print(
    look: Callable[[], Snapshot], screen: Screen, interval_s: float | None, *, as_json: bool
) -> None:
    """Snapshots one below the other; without an interval only one."""
    console = make_console()
    while True:
        snapshot = look()
        if as_json:
            write_json(snapshot)
        else:
            console.print(screen.draw(snapshot, width=console.width, height=10_000))
        if interval_s is None:
            return
        select.select([], [], [], interval_s)


def _watch(look: _Look, screen: Screen, interval_s: float) -> None:
    """Draw until `q`; every key is a look."""
    console = make_console()
    screen.footer = FOOTER
    with _keys() as read_key, Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            drawn = screen.draw(look(), width=console.width, height=console.height)
            live.update(drawn, refresh=True)
            key = read_key(interval_s)
            if key in {"q", "Q", "\x04"}:
                return
            if key == "a":
                look.with_ended = not look.with_ended
            screen.sort = KEYS.get(key, screen.sort)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so long for a key and returns it, or an empty text."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read_key(wait_s: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], wait_s)
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield read_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def make_console(*, is_error: bool = False) -> Console:
    """The terminal, or plain text of 140 columns where there is none."""
    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() else 140
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
