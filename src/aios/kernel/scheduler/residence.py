"""Which contexts are in memory: a model of the page store, for the simulator. Pure.

A context that leaves its slot is in memory; when memory is full, contexts that were used the longest ago leave it for disk, and
those of agents that are expected back after all others. When the disk is full as well, what was used the longest ago is dropped.
What is on disk is read before its agent goes on; what was dropped is computed again. With `foresees`, what `gaps.py` decides
is done in the gaps of agents; without, nothing is.
"""

from collections import OrderedDict
from dataclasses import dataclass

from msgspec import Struct

from aios.abi.types import Pid
from aios.kernel.scheduler.gaps import GapKind, Gaps, Turnover, plan_gap

PAGE_TOKENS = 32


class MemoryModel(Struct, frozen=True):
    """How much memory there is for contexts, and how fast the disk is.

    Args:
        ram_tokens: What memory holds; None: all.
        disk_tokens: What the disk holds of what memory does not; None: all.
        read_s: Of a token; measured: 0.8 ms a page.
        write_s: Of a token that nobody has written ahead; the engine waits for it.
        foresees: Whether gaps of agents are learned and used.
    """

    ram_tokens: int | None = None
    disk_tokens: int | None = None
    read_s: float = 25e-6
    write_s: float = 25e-6
    foresees: bool = True


ALL_IN_MEMORY = MemoryModel()


class Found(Struct, frozen=True):
    """A context that is wanted in a slot: how long what is on disk of it takes to be read, and what must be computed again."""

    read_s: float = 0.0
    n_dropped: int = 0


@dataclass(eq=False, slots=True)
class _Context:
    n_tokens: int
    n_resident: int
    n_on_disk: int = 0
    """Of its first tokens; they may be in memory as well."""
    n_dropped: int = 0
    is_expected: bool = False

    @property
    def n_on_disk_only(self) -> int:
        return self.n_tokens - self.n_dropped - self.n_resident


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
        context = self._keep(agent, n_tokens)
        fetch_after_s = self._plan(agent, context, kind, now_s) if self._model.foresees else None
        return self._make_room(agent), fetch_after_s

    def suspend(self, agent: int, n_tokens: int) -> float:
        """A context leaves its slot, since somebody else gets it. Returns: seconds that the engine waits for the disk."""
        if self._model.ram_tokens is None:
            return 0.0
        self._keep(agent, n_tokens)
        return self._make_room(agent)

    def come_back(self, agent: int, now_s: float) -> Found:
        """An agent makes its next call. With foresight its context is read while it waits for a slot."""
        if not self._model.foresees:
            return Found()
        self._gaps.come_back(Pid(agent), now_s)
        return self.expect(agent)

    def expect(self, agent: int) -> Found:
        """Bring a context into memory and keep it there, since its agent is there or soon will be."""
        context = self._contexts.get(agent)
        if context is not None:
            context.is_expected = True
        return self.fetch(agent)

    def fetch(self, agent: int) -> Found:
        """Bring a context into memory, as far as it was not dropped."""
        context = self._contexts.get(agent)
        if context is None:
            return Found()
        n_missing, n_dropped = context.n_on_disk_only, context.n_dropped
        context.n_resident += n_missing
        context.n_tokens, context.n_dropped = context.n_resident, 0
        self._n_resident += n_missing
        self._contexts.move_to_end(agent)
        self._make_room(agent)
        return Found(n_missing * self._model.read_s, n_dropped)

    def seat(self, agent: int) -> Found:
        """A context is put into a slot; what memory holds of it then is the first to go, as if it were not there."""
        found = self.fetch(agent)
        context = self._contexts.get(agent)
        if context is not None:
            self._n_resident -= context.n_resident
            context.n_tokens = context.n_resident = 0
        return found

    def forget(self, agent: int) -> None:
        """The agent is done."""
        context = self._contexts.pop(agent, None)
        if context is not None:
            self._n_resident -= context.n_resident
        self._gaps.forget(Pid(agent))

    def _keep(self, agent: int, n_tokens: int) -> _Context:
        context = self._contexts.pop(agent, None) or _Context(0, 0)
        self._n_resident += n_tokens - context.n_resident
        context.n_tokens = context.n_resident = n_tokens
        context.n_dropped = 0
        self._contexts[agent] = context
        return context

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

    def _make_room(self, but: int) -> float:
        """Evict until all fits. Returns: seconds of writing for it."""
        ram_tokens, disk_tokens = self._model.ram_tokens, self._model.disk_tokens
        assert ram_tokens is not None
        n_written = 0
        for are_expected in (False, True):
            for agent, context in self._contexts.items():
                if self._n_resident <= ram_tokens:
                    break
                if agent != but and context.is_expected is are_expected:
                    n_written += self._evict(context, self._n_resident - ram_tokens)
        if n_written and disk_tokens is not None:
            self._drop(disk_tokens)
        return n_written * self._model.write_s

    def _evict(self, context: _Context, n_too_many: int) -> int:
        """Take a context out of memory, or the rest of it that is too much. Returns: tokens that had to be written."""
        n_kept = max(0, context.n_resident - n_too_many)
        n_written = max(0, context.n_resident - max(n_kept, context.n_on_disk))
        context.n_on_disk = max(context.n_on_disk, context.n_resident)
        self._n_evicted += context.n_resident - n_kept
        self._n_resident -= context.n_resident - n_kept
        context.n_resident = n_kept
        return n_written

    def _drop(self, disk_tokens: int) -> None:
        """Forget what was used the longest ago of what is on disk only, until the disk holds the rest."""
        only_there = [each for each in self._contexts.values() if each.n_on_disk_only]
        n_too_many = sum(each.n_on_disk_only for each in only_there) - disk_tokens
        for context in only_there:
            n_dropped = max(0, min(n_too_many, context.n_on_disk_only))
            context.n_dropped += n_dropped
            n_too_many -= n_dropped

    def check_invariants(self) -> None:
        """Raise AssertionError if memory holds more than it can, or tokens are counted wrong."""
        contexts = self._contexts.values()
        assert self._n_resident == sum(context.n_resident for context in contexts)
        assert all(context.n_resident >= 0 <= context.n_on_disk_only for context in contexts)
        if self._model.ram_tokens is not None:
            largest = max((context.n_tokens for context in contexts), default=0)
            assert self._n_resident <= max(self._model.ram_tokens, largest)
