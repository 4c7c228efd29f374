"""The live process table: what `top` and `run --top` show. Deciding only; whoever calls it reads the kernel and draws.

aios 0.1.0  up 3m05s  5 processes: 2 running, 2 ready, 1 waiting  41 calls, 4 in flight
local (llama, SmolLM2-135M-Instruct)  8 of 8 slots, 24 queued  181 tok/s  12k in, 3.2k cached, 4.1k out
  PID  NAME      STATE    ACTIVITY  ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aios.abi.calls import KernelInfo
from aios.abi.types import Kind, ProcessInfo, State, Usage
from aios.cli.cells import count_or_dash, described_place, shared_part
from aios.cli.output import counted, printable, short_count, short_seconds

RATE_WINDOW_S = 3.0
"""Seconds over which an engine's tokens a second are taken."""

SortKey = Literal["ran", "waited", "tokens", "pid", "name"]
SORT_KEYS: tuple[SortKey, ...] = ("ran", "waited", "tokens", "pid", "name")

STATE_STYLES = {
    State.NEW: "cyan",
    State.READY: "yellow",
    State.RUNNING: "bold green",
    State.STOPPED: "magenta",
    State.EXITED: "dim",
}
STATE_ORDER = (
    State.RUNNING,
    State.READY,
    State.NEW,
    State.WAITING,
    State.STOPPED,
    State.EXITED,
)


class Snapshot(Struct, frozen=True):
    """The kernel and its processes at one moment; a line of `top --json`."""

    info: KernelInfo
    processes: tuple[ProcessInfo, ...]

    @property
    def now_unix_s(self) -> float:
        """The moment, by the kernel's clock."""
        return self.info.started_unix_s + self.info.uptime_s


@dataclass
class Rates:
    """Tokens a second of each engine, from its counters in the last few seconds."""

    _seen: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    def update(self, info: KernelInfo) -> dict[str, float]:
        """Take in a snapshot; the rate of each engine by name, once there were two."""
        found = {}
        for engine in info.engines:
            seen = self._seen.setdefault(engine.name, [])
            seen.append((info.uptime_s, engine.usage.completion_tokens))
            while len(seen) > 2 and seen[1][0] <= info.uptime_s - RATE_WINDOW_S:
                seen.pop(0)
            (begin_s, n_begin), (end_s, n_end) = seen[0], seen[-1]
            if end_s > begin_s:
                found[engine.name] = (n_end - n_begin) / (end_s - begin_s)
        return found


class Field(Struct, frozen=True):
    """A column: the narrower the terminal, the fewer of those with a high `rank` are shown."""

    title: str
    width: int
    rank: int
    is_number: bool = True


FIELDS = (
    Field("PID", 5, 0),
    Field("NAME", 20, 0, is_number=False),
    Field("STATE", 7, 0, is_number=False),
    Field("ACTIVITY", 12, 2, is_number=False),
    Field("NICE", 4, 5),
    Field("PLACE", 5, 3),
    Field("LEVEL", 5, 6),
    Field("CALLS", 5, 4),
    Field("IN", 5, 1),
    Field("CACHED", 6, 3),
    Field("OUT", 5, 0),
    Field("TOK/S", 5, 3),
    Field("WAITED", 6, 1),
    Field("RAN", 6, 0),
    Field("PREEMPT", 7, 5),
    Field("PAGES", 5, 6),
    Field("RAM", 5, 6),
    Field("DISK", 5, 6),
    Field("SHARED", 6, 6),
    Field("BLOCK", 5, 7),
    Field("FAULTS", 6, 7),
    Field("AGE", 6, 2),
)
GAP = 2


def shown_fields(width: int) -> list[Field]:
    """The columns that fit."""
    for rank in range(max(one.rank for one in FIELDS), 0, -1):
        fields = [one for one in FIELDS if one.rank <= rank]
        if sum(one.width + GAP for one in fields) <= width:
            return fields
    return [one for one in FIELDS if one.rank == 0]


def sorted_processes(processes: Sequence[ProcessInfo], key: SortKey = "ran") -> list[ProcessInfo]:
    """Living ones first; then by the key, most first, and by pid among equals."""

    def rank(process: ProcessInfo) -> tuple[bool, float | str, int]:
        amount: float | str
        match key:
            case "ran":
                amount = -process.ran_s
            case "waited":
                amount = -process.waited_s
            case "tokens":
                amount = -(process.usage.prompt_tokens + process.usage.completion_tokens)
            case "pid":
                amount = 0
            case "name":
                amount = process.name
        return process.exit is not None, amount, process.pid

    return sorted(processes, key=rank)


@dataclass
class Screen:
    """Turns snapshots into what is drawn."""

    sort: SortKey = "ran"
    footer: str = ""
    rates: Rates = field(default_factory=Rates)

    def draw(self, snapshot: Snapshot, *, width: int, height: int) -> RenderableType:
        """The header, as many rows as fit, and their totals."""
        rates = self.rates.update(snapshot.info)
        header = _header(snapshot, rates)
        processes = sorted_processes(snapshot.processes, self.sort)
        n_rows = max(1, height - len(header) - (5 if self.footer else 4))
        parts: list[RenderableType] = [
            *header,
            _table(processes[:n_rows], snapshot, width=width, total=processes),
        ]
        if len(processes) > n_rows:
            parts.append(Text(f"... and {len(processes) - n_rows} more", style="dim"))
        if self.footer:
            parts.append(Text(self.footer, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)


def _header(snapshot: Snapshot, rates: dict[str, float]) -> list[Text]:
    info = snapshot.info
    counts = [(state, sum(p.state is state for p in snapshot.processes)) for state in STATE_ORDER]
    states = ", ".join(f"{n} {state.value}" for state, n in counts if n)
    kind = " (embedded)" if info.embedded else ""
    about = (
        f"aios {info.version}{kind}  up {short_seconds(info.uptime_s)}  "
        f"{counted(len(snapshot.processes), 'process', 'processes')}: {states or 'none'}  "
        f"{counted(info.n_calls, 'call', is_short=True)}, {info.n_in_flight} in flight"
    )
    lines = [about]
    for engine in info.engines:
        rate = f"  {rates[engine.name]:.0f} tok/s" if engine.name in rates else ""
        usage = engine.usage
        lines.append(
            f"{engine.name} ({engine.kind}{', ' + engine.model if engine.model else ''})  "
            f"{engine.n_running} of {engine.n_slots} slots, {engine.n_queued} queued{rate}  "
            f"{short_count(usage.prompt_tokens)} in, {short_count(usage.cached_tokens)} cached, "
            f"{short_count(usage.completion_tokens)} out"
            + (f"  {engine.note}" if engine.note else "")
        )
    texts = [Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines]
    warnings = [Text(f"warning: {printable(text)}", style="yellow") for text in info.warnings]
    return [*texts, *warnings]


def _table(
    processes: Sequence[ProcessInfo],
    snapshot: Snapshot,
    *,
    width: int,
    total: Sequence[ProcessInfo],
) -> Table:
    fields = shown_fields(width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="reverse")
    for one in fields:
        justify: Literal["right", "left"] = "right" if one.is_number else "left"
        is_name = one.title == "NAME"
        table.add_column(
            one.title,
            justify=justify,
            no_wrap=True,
            overflow="ellipsis",
            min_width=one.width if not is_name else 8,
            max_width=None if is_name else max(one.width, 12),
        )
    for process in processes:
        cells = _cells(process, snapshot.now_unix_s)
        table.add_row(*(cells[one.title] for one in fields), style="dim" if process.exit else "")
    if len(total) > 1:
        sums = _totals(total)
        table.add_row(*(sums.get(one.title, "") for one in fields), style="bold")
    return table


def _cells(process: ProcessInfo, now_unix_s: float) -> dict[str, str | Text]:
    usage, end, held = process.usage, process.exit, process.pages
    until_s = process.ended_unix_s if process.ended_unix_s is not None else now_unix_s
    state = process.state.value if end is None else f"exit {end.status}"
    style = "red" if end is not None and end.status else STATE_STYLES.get(process.state, "")
    return {
        "PID": str(process.pid),
        "NAME": Text(process.name),
        "STATE": Text(state, style=style),
        "ACTIVITY": process.activity or "-",
        "NICE": str(process.nice),
        "PLACE": described_place(process),
        "LEVEL": count_or_dash(process.level),
        "CALLS": short_count(process.n_calls),
        "IN": short_count(usage.prompt_tokens),
        "CACHED": short_count(usage.cached_tokens),
        "OUT": short_count(usage.completion_tokens),
        "TOK/S": _rate(usage.completion_tokens, process.ran_s),
        "WAITED": short_seconds(process.waited_s),
        "RAN": short_seconds(process.ran_s),
        "PREEMPT": short_count(process.n_preemptions),
        "PAGES": count_or_dash(held.n_pages if held else None),
        "RAM": count_or_dash(held.n_in_memory if held else None),
        "DISK": count_or_dash(held.n_on_disk if held else None),
        "SHARED": shared_part(process),
        "BLOCK": short_count(process.block_bytes),
        "FAULTS": short_count(process.n_block_faults),
        "AGE": short_seconds(until_s - process.started_unix_s),
    }


def _totals(processes: Sequence[ProcessInfo]) -> dict[str, str]:
    usage = sum((p.usage for p in processes), Usage())
    ran_s = sum(p.ran_s for p in processes)
    return {
        "NAME": "total",
        "CALLS": short_count(sum(p.n_calls for p in processes)),
        "IN": short_count(usage.prompt_tokens),
        "CACHED": short_count(usage.cached_tokens),
        "OUT": short_count(usage.completion_tokens),
        "WAITED": short_seconds(sum(p.waited_s for p in processes)),
        "RAN": short_seconds(ran_s),
        "PREEMPT": short_count(sum(p.n_preemptions for p in processes)),
    }


def _rate(n_tokens: int, ran_s: float) -> str:
    """Tokens a second while it held a turn."""
    return f"{n_tokens / ran_s:.0f}" if n_tokens and ran_s > 0.01 else "-"


def is_shown(process: ProcessInfo) -> bool:
    """Whether `top` shows it: all but init, which is the owner and not at work."""
    return process.kind is not Kind.INIT
