"""What a `run` is to start and how it is to be shown."""

from collections.abc import Iterator

import click
import msgspec
from msgspec import Struct

from aios.abi.calls import Spawn
from aios.abi.timers import TimerInfo
from aios.abi.types import Exit, Pid
from aios.cli.output import printable, write_json
from aios.cli.when import shown


class Order(Struct, frozen=True):
    """One `run`: the call that starts its program, how often, and how it is shown."""

    spawn: Spawn
    n_copies: int
    shows_top: bool
    as_json: bool

    def calls(self) -> Iterator[Spawn]:
        """The call for each of the copies; those of a named program are numbered from 1."""
        for number in range(1, self.n_copies + 1):
            if self.spawn.name is None or self.n_copies == 1:
                yield self.spawn
            else:
                yield msgspec.structs.replace(self.spawn, name=f"{self.spawn.name}-{number}")

    def tell_started(self, pid: Pid, name: str) -> None:
        """With `--json`, say that a process runs."""
        if self.as_json:
            write_json({"event": "started", "pid": pid, "name": name})

    def tell_timer(self, timer: TimerInfo) -> None:
        """Say when a timer runs first."""
        if self.as_json:
            write_json(timer)
        else:
            at = shown(timer.next_unix_s, timer.zone)
            click.echo(f"timer {timer.id}, next at {at} {timer.zone}")

    def note(self, text: str) -> None:
        """Say something beside the output."""
        if self.as_json:
            click.echo(msgspec.json.encode({"note": text}).decode(), err=True)
        else:
            click.secho(text, dim=True, err=True)

    def tell_end(self, pid: Pid, name: str, end: Exit) -> None:
        """Say how a process ended: its result on stdout, and on stderr why it failed."""
        if self.as_json:
            write_json({"event": "ended", "pid": pid, "name": name, "exit": end})
            return
        if end.status and end.reason:
            text = f"{name} ({pid}) ended with status {end.status}: {printable(end.reason)}"
            click.secho(text, fg="red", err=True)
        if end.result:
            prefix = f"{name}: " if self.n_copies > 1 else ""
            click.echo(prefix + printable(end.result))
