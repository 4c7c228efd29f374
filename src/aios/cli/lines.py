"""Log lines on the terminal: prefixed with names when several processes speak, or as JSON."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import click

from aios.abi.gate import Line, Progress
from aios.abi.types import LogLine, Pid
from aios.cli.output import counted, printable, write_json

NAME_COLORS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow")
ERROR_STREAMS = frozenset({"err", "kernel"})


@dataclass
class LinePrinter:
    """Writes the lines of one or several processes.

    Args:
        names: The name of each process; a prefix for its lines when there are several.
        has_times: Begin each line with its local time.
        splits_streams: What a process wrote to stderr goes to our stderr; else all goes to stdout.
        as_json: One JSON object a line.
    """

    names: Mapping[Pid, str]
    has_times: bool = False
    splits_streams: bool = False
    as_json: bool = False
    _colors: dict[Pid, str] = field(default_factory=dict)

    def write(self, frame: Progress) -> None:
        """Write one frame of a `logs` call."""
        if not isinstance(frame, Line):
            return
        if frame.n_missed and not self.as_json:
            note = f"... {counted(frame.n_missed, 'line')} left out, the log is bounded ..."
            click.secho(self._prefix(frame.line) + note, dim=True, err=True)
        if self.as_json:
            write_json(self.as_event(frame))
        else:
            self._write_text(frame.line)

    def as_event(self, frame: Line) -> dict[str, object]:
        """A line as a JSON object."""
        line = frame.line
        event: dict[str, object] = {
            "event": "line",
            "pid": line.pid,
            "name": self.names.get(line.pid, ""),
            "unix_s": line.unix_s,
            "stream": line.stream,
            "text": line.text,
        }
        return {**event, "n_missed": frame.n_missed} if frame.n_missed else event

    def _write_text(self, line: LogLine) -> None:
        is_error = line.stream in ERROR_STREAMS
        text = printable(line.text)
        text = click.style(text, dim=True) if line.stream == "kernel" else text
        click.echo(self._prefix(line) + text, err=is_error and self.splits_streams)

    def _prefix(self, line: LogLine) -> str:
        clock = time.strftime("%H:%M:%S ", time.localtime(line.unix_s)) if self.has_times else ""
        if len(self.names) < 2:
            return clock
        name = self.names.get(line.pid, str(line.pid))
        width = max(len(other) for other in self.names.values())
        return clock + click.style(f"{name:<{width}} | ", fg=self._color(line.pid))

    def _color(self, pid: Pid) -> str:
        return self._colors.setdefault(pid, NAME_COLORS[len(self._colors) % len(NAME_COLORS)])
