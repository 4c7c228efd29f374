"""To which version a path goes back when the acts of one process are undone. Pure.

    versions    1 others   2 mine   3 others   4 mine   5 mine        undo of mine -> 3, and 2 stays: it lies under 3
    versions    1 others   2 mine   3 undo, back to 1                 undo of mine -> nothing: 3 is what 1 was
    versions    1 mine     2 mine, deleted                            undo of mine -> 0, which 2 is already: it stands for 0 from then on
    versions    1 mine     2 mine, an undo back to 0                  the same

The walk begins at the newest version and steps over what is mine; a version that an undo made stands for the one that it went back to,
unless it is mine itself: then the undo is undone.
"""

from collections.abc import Mapping

from msgspec import Struct


class Version(Struct, frozen=True):
    """One version of a path, as far as undoing needs it."""

    version: int
    is_mine: bool
    author: str
    back_to: int | None = None
    """Made by an undo: the version whose content it has; 0 is that there was none."""
    is_undone: bool = False
    """No undo made it, but one found that nothing had to be changed to be back there: it is undone itself, and has the content of `back_to`."""


class Plan(Struct, frozen=True):
    """Where a path goes back to: `target` None is nowhere, 0 is that there was none. `buried` of mine stay below another's."""

    target: int | None
    buried: tuple[int, ...] = ()
    buried_under: str = ""


def plan(history: Mapping[int, Version], newest: int) -> Plan:
    """The plan for a path.

    Args:
        history: Its versions by number; purged ones are missing, and nothing below them is known.
        newest: The number of its newest version.
    """
    here = newest
    while (found := history.get(here)) is not None:
        if found.back_to is not None and (found.is_undone or not found.is_mine):
            here = found.back_to
        elif found.is_mine:
            here -= 1
        else:
            break
    above = history.get(here)
    buried = tuple(_mine_below(history, here))
    last = history.get(newest)
    is_open = here != newest and last is not None and last.is_mine and not last.is_undone
    is_moved = is_open or _source(history, here) != _source(history, newest)
    return Plan(here if is_moved else None, buried, above.author if above and buried else "")


def undone(history: Mapping[int, Version], newest: int) -> frozenset[int]:
    """The versions of a path that an undo went back behind, and no later one brought back; purged ones count as changes."""
    found: set[int] = set()
    here = newest
    while here > 0:
        version = history.get(here)
        if version is None or version.back_to is None:
            here -= 1
        else:
            found.update(range(version.back_to + 1, here + version.is_undone))
            here = version.back_to
    return frozenset(found)


def _source(history: Mapping[int, Version], version: int) -> int:
    """The version that first had the content of this one."""
    while (found := history.get(version)) is not None and found.back_to is not None:
        version = found.back_to
    return version


def _mine_below(history: Mapping[int, Version], version: int) -> list[int]:
    """Mine that what is at `version` was made on."""
    found = []
    here = version
    while (each := history.get(here)) is not None:
        is_stepped_over = each.back_to is not None and (each.is_undone or not each.is_mine)
        if each.is_mine and not is_stepped_over:
            found.append(here)
        here = each.back_to if each.back_to is not None and is_stepped_over else here - 1
    return found
