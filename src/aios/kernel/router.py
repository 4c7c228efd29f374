"""Which engine serves a call: by name, by what it can do, by how busy it is, then down the stated fallback order. Pure.

    named     engines that the call's model names: an engine's own name, else a model's name or an alias, else the default
    fallback  the engines that those name as their fallback, and theirs, in the order of the configuration

A named engine that is up comes before one that is being loaded, and both before any fallback; engines that are down are left
out. Among named engines the higher priority is first. Among equals the cheapest is: what a call costs there, in tokens of
prefill, is its wait for a slot and, where its pages are not, the prompt that must be computed again. So a context, or a process
without one, stays where its pages are until the wait there is longer than the prefill that it saves.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from aios.abi.types import EngineState
from aios.engine.base import Ability
from aios.kernel.homes import Home

DEFAULT_NAMES = frozenset({"", "default"})
DECODE_WEIGHT = 1.5
"""A generated token costs this many of prefill: 314 against 224 tokens a second with 8 sequences on two cores."""
USUAL_CALL_TOKENS = 500.0
"""What a call is taken to cost on an engine that has served none yet."""


class Candidate(Struct, frozen=True):
    """An engine as the router sees it."""

    name: str
    models: frozenset[str]
    """The model's name and the aliases."""
    state: EngineState
    abilities: frozenset[Ability] | None
    """None: not known before it has been loaded."""
    n_slots: int = 1
    n_calls: int = 0
    """Calls that run or wait there."""
    call_tokens: float = USUAL_CALL_TOKENS
    """What a call costs there on average, in tokens of prefill."""
    priority: int = 0
    fallback: tuple[str, ...] = ()
    pages: str = ""
    """Which pages it can put back into a slot; engines with the same value share them."""

    @property
    def wait_tokens(self) -> float:
        """What is done before a slot is free for one call more, in tokens of prefill."""
        return max(0, self.n_calls + 1 - self.n_slots) / self.n_slots * self.call_tokens


class Wish(Struct, frozen=True):
    """What a call asks of an engine. Without `may_fall_back` only engines that its model names serve it."""

    model: str
    needs: frozenset[Ability] = frozenset()
    may_fall_back: bool = True


def find_named(engines: Sequence[Candidate], model: str) -> list[Candidate]:
    """The engines that a model's name stands for; none if it is unknown."""
    if model in DEFAULT_NAMES:
        return list(engines[:1])
    own = [engine for engine in engines if engine.name == model]
    return own or [engine for engine in engines if model in engine.models]


def find_chain(engines: Sequence[Candidate], named: Iterable[Candidate]) -> list[Candidate]:
    """The named engines and all their fallbacks, nearest first, each once."""
    by_name = {engine.name: engine for engine in engines}
    chain = list(named)
    for engine in chain:  # grows while it is walked
        for name in engine.fallback:
            if name in by_name and by_name[name] not in chain:
                chain.append(by_name[name])
    return chain


def route(
    engines: Sequence[Candidate],
    wish: Wish,
    *,
    home: Home | None = None,
    tried: frozenset[str] = frozenset(),
) -> list[Candidate]:
    """The engines that may serve a call, best first; empty if nobody has the name, or if all are down or were tried.

    Engines that lack what the call needs are left out, unless all do: then one of them says what is missing.
    """
    named = find_named(engines, wish.model)
    chain = find_chain(engines, named) if wish.may_fall_back else named
    able = [each for each in chain if each.abilities is None or wish.needs <= each.abilities]
    usable = [
        each
        for each in able or chain
        if each.state is not EngineState.DOWN and each.name not in tried
    ]
    first = [each for each in usable if each in named]
    rest = [each for each in usable if each not in named]
    return sorted(first, key=lambda each: _rank(each, home)) + rest


def _rank(engine: Candidate, home: Home | None) -> tuple[bool, int, float, float]:
    """Lower is better; sorting is stable, so the order of the configuration decides between equals."""
    lost = home.n_tokens if home is not None and home.pages != engine.pages else 0
    is_loading = engine.state is EngineState.LOADING
    busy = engine.n_calls / engine.n_slots
    return is_loading, -engine.priority, engine.wait_tokens + lost, busy
