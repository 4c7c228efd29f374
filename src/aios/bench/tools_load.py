"""The load of the `tools` bench, and the shortest schedule for it that a search finds. Pure.

Agents act in turns of several calls at once; every call takes as long as any other. Two fifths of the calls write a file that is the
agent's own, the rest reads or writes one of a few files that all share.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

OWN_SHARE = 0.4


class Use(Struct, frozen=True):
    """One call: which file, and whether it writes."""

    file: str
    is_write: bool


Turn = tuple[Use, ...]
Load = tuple[tuple[Turn, ...], ...]
"""For each agent its turns."""


class LoadShape(Struct, frozen=True):
    """The size of a load."""

    n_agents: int = 12
    n_turns: int = 20
    n_calls: int = 1
    """At once in a turn."""
    n_shared: int = 8
    write_share: float = 1 / 3
    """Of the calls on shared files."""

    @property
    def n_all(self) -> int:
        """Calls of all agents."""
        return self.n_agents * self.n_turns * self.n_calls


def make_load(shape: LoadShape, seed: int) -> Load:
    """A load at random; equal for equal seeds."""
    random = Random(seed)  # noqa: S311 - a load, not a secret
    return tuple(
        tuple(
            tuple(_use(random, shape, f"own-{agent}-{n}") for n in range(shape.n_calls))
            for _ in range(shape.n_turns)
        )
        for agent in range(shape.n_agents)
    )


def _use(random: Random, shape: LoadShape, own: str) -> Use:
    if random.random() < OWN_SHARE:
        return Use(own, is_write=True)
    return Use(f"shared-{random.randrange(shape.n_shared)}", random.random() < shape.write_share)


def ideal_length(load: Load, *, n_tries: int = 400, seed: int = 1) -> int:
    """The fewest steps, each as long as a call, that a search with full knowledge finds: no schedule is known to be shorter.

    It tries those that have most turns left first, with more and more chance in the order. Never below what one agent, or
    the writers of one file, need by themselves.
    """
    random = Random(seed)  # noqa: S311 - a search, not a secret
    noises = (0.0, 1.0, 3.0, 6.0)
    least = _lower_bound(load)
    best = len(load) * max(map(len, load)) * max(len(turn) for turns in load for turn in turns)
    for number in range(n_tries):
        best = min(best, _length(load, random, noises[number % len(noises)]))
        if best == least:
            break
    return best


def _lower_bound(load: Load) -> int:
    writes: dict[str, int] = {}
    for use in (use for turns in load for turn in turns for use in turn if use.is_write):
        writes[use.file] = writes.get(use.file, 0) + 1
    return max(max(map(len, load)), *writes.values())


def _length(load: Load, random: Random, noise: float) -> int:
    """The steps of one schedule: in each, all that may go beside what was chosen before."""
    at = [0] * len(load)
    pending: list[list[Use]] = [list(turns[0]) for turns in load]
    n_steps = 0
    while any(pending):
        n_steps += 1
        wishes = [
            (at[agent] + noise * random.random(), agent, use)
            for agent, uses in enumerate(pending)
            for use in uses
        ]
        _serve(sorted(wishes, key=lambda wish: wish[0]), pending)
        for agent, turns in enumerate(load):
            if not pending[agent] and at[agent] < len(turns):
                at[agent] += 1
                pending[agent] = list(turns[at[agent]]) if at[agent] < len(turns) else []
    return n_steps


def _serve(wishes: Sequence[tuple[float, int, Use]], pending: list[list[Use]]) -> None:
    taken: dict[str, bool] = {}
    for _, agent, use in wishes:
        if use.file not in taken or not (taken[use.file] or use.is_write):
            taken[use.file] = use.is_write
            pending[agent].remove(use)
