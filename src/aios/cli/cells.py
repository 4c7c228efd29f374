"""What `ps` and `top` both say of a process, cell by cell."""

from aios.abi.types import ProcessInfo
from aios.cli.output import short_count


def attained_tokens(process: ProcessInfo) -> int:
    """What the model did for a process: prompt tokens that were computed, and those generated."""
    usage = process.usage
    return usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens


def described_place(process: ProcessInfo) -> str:
    """How far it is from a turn: `turn` has one, 1 is the next in its queue."""
    return "turn" if process.place == 0 else count_or_dash(process.place)


def shared_part(process: ProcessInfo) -> str:
    """The part of its pages that another process uses, too."""
    held = process.pages
    return f"{100 * held.n_shared / held.n_pages:.0f}%" if held and held.n_pages else "-"


def count_or_dash(n: int | None) -> str:
    """A count, or a dash where there is none."""
    return "-" if n is None else short_count(n)
