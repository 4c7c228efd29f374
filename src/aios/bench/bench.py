"""What a bench is: its rows, its limit of time, and the function that measures."""

from collections.abc import Awaitable, Callable
from time import perf_counter

from msgspec import Struct

from aios.bench.rows import Report, Series, Spec


class Shape(Struct, frozen=True):
    """The size of the `workload` bench.

    Args:
        n_agents: Agents at once.
        n_turns: Turns of each.
        max_tokens: Tokens of each turn, exactly.
        n_rules: Rules in the head that all agents share, of about 28 tokens each.
    """

    n_agents: int = 16
    n_turns: int = 3
    max_tokens: int = 24
    n_rules: int = 12


class Settings(Struct, frozen=True):
    """How to measure. `say` takes a line of progress."""

    quick: bool
    say: Callable[[str], None]
    shape: Shape | None = None
    """None leaves it to the bench."""


Measure = Callable[[Settings, Report], Awaitable[None]]


class Bench(Struct, frozen=True):
    """One bench. What `measure` has not reported within `limit_s` is missing.

    One that `is_long` is left out of a quick run of all; by its name it always runs.
    """

    name: str
    about: str
    limit_s: float
    specs: tuple[Spec, ...]
    measure: Measure
    is_long: bool = False


async def alternate(n_repeats: int, *measures: Callable[[], Awaitable[float]]) -> list[Series]:
    """Take each figure in turn, so many times over (A B A B): a machine that slows down slows all of them."""
    found: list[list[float]] = [[] for _ in measures]
    for _ in range(n_repeats):
        for values, measure in zip(found, measures, strict=True):
            values.append(await measure())
    return [Series(tuple(values)) for values in found]


async def seconds_each(n: int, act: Callable[[], Awaitable[object]]) -> list[float]:
    """How long each of `n` repeats takes, one after another."""
    found = []
    for _ in range(n):
        begun_s = perf_counter()
        await act()
        found.append(perf_counter() - begun_s)
    return found
