"""Which contexts are in memory: a model of the page store, for the simulator. Pure.

A context that leaves its slot is in memory; when memory is full, contexts that were used the longest ago leave it for disk, and
those of agents that are expected back after all others. What is not in memory is read before its agent goes on. With
`foresees`, what `gaps.py` decides is done in the gaps of agents; without, nothing is.
"""

from collections import OrderedDict
from dataclasses import dataclass

from aios.abi.types import Pid
from aios.kernel.scheduler.gaps import GapKind, Gaps, Turnover, plan_gap

PAGE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """How much memory there is for contexts, and how fast the disk is.

    Args:
        ram_tokens: What memory holds; None: all.
        read_s: Of a token; measured: 0.8 ms a page.
        write_s: Of a token that nobody has written ahead; the engine waits for it.
        foresees: Whether gaps of agents are learned and used.
    """

    ram_tokens: int | None = None
    read_s: float = 25e-6
    write_s: float = 25e-6
    foresees: bool = True


ALL_IN_MEMORY = MemoryModel()


@dataclass(eq=False, slots=True)
class _Context:
    n_tokens: int
    n_resident: int
    n_on_disk: int = 0
    is_expected: bool = False


class Residence:
    """The contexts of all agents, by number."""

    def __init__(self, model: MemoryModel) -> None:
        self._model = model
        self._gaps = Gaps()
        self._turnover = Turnover()
        self._contexts: OrderedDict[int, _Context] = OrderedDict()
        """The one that was used last at the end."""
        self._n_resident = self._n_evicted = 0

    def leave(
        self, agent: int, kind: str, *, n_tokens: int, now_s: float
    ) -> tuple[float, float | None]:
        """A context leaves its slot, since its agent goes elsewhere.

        Returns: Seconds that the engine waits for the disk; and after how many the context should be fetched, if it should.
        """
        if self._model.ram_tokens is None:
            return 0.0, None
        context = self._contexts.pop(agent, None) or _Context(0, 0)
        self._n_resident += n_tokens - context.n_resident
        context.n_tokens = context.n_resident = n_tokens
        self._contexts[agent] = context
        fetch_after_s = self._plan(agent, context, kind, now_s) if self._model.foresees else None
        return self._make_room(self._model.ram_tokens, agent) * self._model.write_s, fetch_after_s

    def come_back(self, agent: int, now_s: float) -> float:
        """An agent makes its next call. Returns: how long reading takes of what is not in memory; it is there after that."""
        context = self._contexts.get(agent)
        if context is None:
            return 0.0
        if self._model.foresees:
            self._gaps.come_back(Pid(agent), now_s)
        return self.fetch(agent)

    def fetch(self, agent: int) -> float:
        """Bring a context into memory. Returns: how long that takes."""
        context = self._contexts.get(agent)
        if context is None or self._model.ram_tokens is None:
            return 0.0
        n_missing = context.n_tokens - context.n_resident
        context.n_resident = context.n_tokens
        self._n_resident += n_missing
        self._contexts.move_to_end(agent)
        self._make_room(self._model.ram_tokens, agent)
        return n_missing * self._model.read_s

    def forget(self, agent: int) -> None:
        """The agent is done."""
        context = self._contexts.pop(agent, None)
        if context is not None:
            self._n_resident -= context.n_resident
        self._gaps.forget(Pid(agent))

    def _plan(self, agent: int, context: _Context, kind: str, now_s: float) -> float | None:
        stay = self._gaps.leave(Pid(agent), GapKind(kind), now_s)
        assert self._model.ram_tokens is not None
        turnover_s = self._turnover.after_s(
            n_frames=self._model.ram_tokens // PAGE_TOKENS,
            n_evicted=self._n_evicted // PAGE_TOKENS,
            now_s=now_s,
        )
        context.is_expected = False
        if stay is None:
            return None
        plan = plan_gap(
            stay,
            n_pages=context.n_tokens // PAGE_TOKENS,
            page_read_s=self._model.read_s * PAGE_TOKENS,
            turnover_s=turnover_s,
        )
        context.is_expected = plan.is_kept
        if plan.is_paged_out:
            context.n_on_disk = context.n_tokens
        return plan.fetch_after_s

    def _make_room(self, ram_tokens: int, but: int) -> int:
        """Evict until all fits. Returns: tokens that had to be written for it."""
        n_written = 0
        for are_expected in (False, True):
            for agent, context in self._contexts.items():
                if self._n_resident <= ram_tokens:
                    return n_written
                if agent == but or context.is_expected is not are_expected:
                    continue
                n_kept = max(0, context.n_resident - (self._n_resident - ram_tokens))
                n_written += max(0, context.n_resident - max(n_kept, context.n_on_disk))
                context.n_on_disk = max(context.n_on_disk, context.n_resident)
                self._n_evicted += context.n_resident - n_kept
                self._n_resident -= context.n_resident - n_kept
                context.n_resident = n_kept
        return n_written

    def check_invariants(self) -> None:
        """Raise AssertionError if memory holds more than it can, or tokens are counted wrong."""
        contexts = self._contexts.values()
        assert self._n_resident == sum(context.n_resident for context in contexts)
        assert all(0 <= context.n_resident <= context.n_tokens for context in contexts)
        if self._model.ram_tokens is not None:
            largest = max((context.n_tokens for context in contexts), default=0)
            assert self._n_resident <= max(self._model.ram_tokens, largest)
