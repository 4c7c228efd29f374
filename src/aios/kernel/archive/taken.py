"""What came of taking an archive in."""

from dataclasses import dataclass, field

from msgspec import Struct


class TakenIn(Struct, frozen=True):
    """What was written, what was there already, and what was left as it is because something else is there."""

    n_notes: int
    n_interactions: int
    n_versions: int
    n_shares: int
    n_known: int
    kept: tuple[str, ...]


@dataclass
class Taken:
    """Counters on the way."""

    n_notes: int = 0
    n_interactions: int = 0
    n_versions: int = 0
    n_shares: int = 0
    n_known: int = 0
    kept: list[str] = field(default_factory=list)
