"""The slots of a context: who sits where, and which tokens are in whose cells.

Cells outlive their generation. A newcomer takes a free slot that holds the beginning of its prompt, and what another slot
holds of it, even a busy one, is copied instead of computed: a token takes 12 us to copy and 4 ms to compute on two cores.
Sequences that start together with a common head compute it once: the oldest goes first, and the others are held until they
can copy. What no slot holds any more comes back from what the keeper has.
"""

from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from aios.engine.batch import Progress
from aios.engine.llama.binding import Context
from aios.engine.llama.generation import Generation
from aios.engine.llama.keeping import NOTHING, Keeper, Kept
from aios.engine.llama.sampling import Tokens

MIN_SHARED_TOKENS = 16
"""Fewer are not worth a copy, or a wait for one."""
COPY_RATIO = 8
"""A copy moves a whole sequence: done if it moves at most this many tokens for each that is used."""
N_SHARERS = 8
"""Newcomers that are looked at before a prefill step: as many as a step may hold; the others are held."""


@dataclass(eq=False)
class Slot:
    """Cells for one sequence: they hold the first `n_computed` of `tokens`. Free if no generation sits here."""

    index: int
    generation: Generation | None = None
    n_computed: int = 0
    used_at: int = 0
    left: Tokens = field(default_factory=lambda: np.empty(0, np.int32))
    """The tokens in the cells of a free slot."""

    @property
    def tokens(self) -> Tokens:
        """What is in the cells, and of a generation also what is not computed yet."""
        return self.left if self.generation is None else self.generation.tokens

    @property
    def progress(self) -> Progress:
        """How far its generation is."""
        is_urgent = self.generation is not None and self.generation.is_urgent
        return Progress(self.index, len(self.tokens), self.n_computed, is_urgent)


class Slots:
    """All slots of a context.

    Args:
        context: Whose cells they are.
        n_slots: How many it was made for.
        keeper: Keeps what leaves the slots; None forgets it.
    """

    def __init__(self, context: Context, n_slots: int, keeper: Keeper | None = None) -> None:
        self._context = context
        self._keeper = keeper
        self._slots = [Slot(index) for index in range(n_slots)]
        self._seated: dict[Generation, Slot] = {}  # oldest first
        self._n_left = 0
        self._state = np.empty(0, np.uint8)
        self.n_copied_tokens = 0
        self.n_suspended = 0
        self.suspend_s = 0.0
        """Time that suspending took, and filling slots for those who go on."""
        self.resume_s = 0.0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def n_seated(self) -> int:
        """Slots that are not free."""
        return len(self._seated)

    def progress(self) -> list[Progress]:
        """How far everybody is, the urgent first, then the oldest."""
        return [slot.progress for slot in self._ordered()]

    def _ordered(self) -> list[Slot]:
        return sorted(self._seated.values(), key=lambda slot: not slot.progress.is_urgent)

    def sitter(self, index: int) -> Generation:
        """The generation in a slot, which must not be free."""
        generation = self._slots[index].generation
        assert generation is not None
        return generation

    def seat(self, generation: Generation) -> None:
        """Give a generation the free slot that suits it best, with what the cells there hold of its tokens.

        That is the slot that it goes on with. But where it shares only a head and would destroy the rest, the slot is
        left to whoever goes on with that, and the one that was used the longest ago is taken; `share` copies the head.
        """
        free = [slot for slot in self._slots if slot.generation is None]
        wanted = generation.tokens[:-1]  # the last is always computed, for its logits
        shared = {slot: shared_tokens(wanted, slot.left) for slot in free}
        slot = max(free, key=lambda slot: (shared[slot], -slot.used_at))
        if 2 * shared[slot] < slot.n_computed:
            slot = min(free, key=lambda slot: slot.used_at)
        started_s = perf_counter()
        self.cut(slot.index, shared[slot])
        self._fill_from_kept(slot, wanted, generation.kept)
        slot.generation = generation
        self._seated[generation] = slot
        if generation.kept.pin:
            self._let_go(generation)
            self.resume_s += perf_counter() - started_s

    def leave(self, generation: Generation) -> None:
        """Free the slot of a generation, if it has one; the cells stay as they are for whoever comes."""
        slot = self._seated.pop(generation, None)
        if slot is not None:
            self._n_left += 1
            slot.used_at = self._n_left
            slot.left = generation.tokens[: slot.n_computed]
            slot.generation = None
            if self._keeper is not None:
                self._keeper.save(slot.index, slot.left)

    def pages(self, generation: Generation) -> tuple[bytes, ...]:
        """The names of the pages of a generation that has ended. Cost: 1 us a page."""
        return () if self._keeper is None else self._keeper.pages(generation.tokens[:-1])

    def suspend(self, generation: Generation) -> Kept:
        """Free the slot of a generation and keep its cells to the last token. Again, or without a slot: what is kept."""
        slot = self._seated.get(generation)
        if slot is not None and self._keeper is not None:
            started_s = perf_counter()
            tokens = generation.tokens[: slot.n_computed]
            generation.kept = self._keeper.suspend(slot.index, tokens)
            self.n_suspended += 1
            self.suspend_s += perf_counter() - started_s
        self.leave(generation)
        return generation.kept

    def discard(self, generation: Generation) -> None:
        """Free the slot of a generation that nobody goes on with."""
        self.leave(generation)
        self._let_go(generation)

    def _let_go(self, generation: Generation) -> None:
        """Keep the cells of a generation no longer than those of any other."""
        if self._keeper is not None and generation.kept.pin:
            self._keeper.unpin(generation.kept.pin)
        generation.kept = NOTHING

    def _fill_from_kept(self, slot: Slot, wanted: Tokens, kept: Kept) -> None:
        """Fill a slot if clearly more of what is wanted is kept than it holds; any more, if that was suspended."""
        n_least = slot.n_computed + (1 if kept.pin else MIN_SHARED_TOKENS)
        n_kept = kept.n_tokens
        if self._keeper is None or self._keeper.n_stored(wanted, n_kept=n_kept) < n_least:
            return
        self._load(slot, wanted, n_kept=n_kept)

    def _load(self, slot: Slot, wanted: Tokens, *, n_kept: int = 0) -> None:
        """Fill a slot with what is kept of what is wanted; it holds nothing if that cannot be read."""
        assert self._keeper is not None, "nothing is kept"
        n_tokens = self._keeper.load(slot.index, wanted, n_kept=n_kept)
        if n_tokens:
            slot.n_computed = n_tokens
        else:
            self.cut(slot.index, 0)

    def fill(self, index: int, n_tokens: int) -> None:
        """Note that the cells of a slot hold `n_tokens` now."""
        self._slots[index].n_computed = n_tokens

    def cut(self, index: int, n_tokens: int) -> None:
        """Drop the cells of a slot from `n_tokens` on; all of them if the model's memory cannot be cut there."""
        self._slots[index].n_computed = n_tokens if self._context.keep(index, n_tokens) else 0

    def share(self) -> frozenset[int]:
        """Fill slots in prefill with what other slots hold of their prompts, or the keeper where that is more.

        Returns: The slots that should wait, since an older one is about to compute more of what both need.
        Cost: 3 us for each pair of slots, 90 us for each 1,000 tokens of a prompt, 12 us for each token copied.
        """
        filling = [slot for slot in self._ordered() if slot.progress.n_missing > 1]
        held = {slot.index for slot in filling[N_SHARERS:]}
        for n_older, slot in enumerate(filling[:N_SHARERS]):
            wanted = slot.tokens[:-1]
            n_most = self._context.max_cut_tokens
            older = [o for o in filling[:n_older] if len(o.tokens) <= n_most]
            n_soon = max((shared_tokens(wanted, o.tokens) for o in older), default=0)
            source, n_now = self._find_source(slot)
            if n_soon > n_now and n_soon - slot.n_computed >= MIN_SHARED_TOKENS:
                held.add(slot.index)
            elif self._is_stored(wanted, n_now + MIN_SHARED_TOKENS):
                self._load(slot, wanted)
            elif source is not None:
                self._copy(source, slot, n_now)
        return frozenset(held)

    def _is_stored(self, wanted: Tokens, n_least: int) -> bool:
        """Whether so much is kept in memory: who computed what others wait for may have left its slot before its end."""
        return (
            self._keeper is not None
            and self._keeper.n_stored(wanted) >= n_least
            and not self._keeper.is_on_disk(wanted)
        )

    def _find_source(self, slot: Slot) -> tuple[Slot | None, int]:
        """Where the longest beginning of a slot's tokens lies ready, and how long it is. None: where it is."""
        wanted = slot.tokens[:-1]
        best, n_best = None, slot.n_computed
        for other in self._slots:
            n_ready = shared_tokens(wanted, other.tokens[: other.n_computed])
            n_gained = n_ready - slot.n_computed
            is_worth_it = n_gained >= max(MIN_SHARED_TOKENS, other.n_computed // COPY_RATIO)
            is_usable = other.n_computed <= max(n_ready, self._context.max_cut_tokens)
            if n_ready > n_best and is_worth_it and is_usable:
                best, n_best = other, n_ready
        return best, n_best

    def _copy(self, source: Slot, slot: Slot, n_tokens: int) -> None:
        n_bytes = self._context.state_size_bytes(source.index)
        if self._state.nbytes < n_bytes:
            self._state = np.empty(n_bytes + n_bytes // 2, np.uint8)
        n_bytes = self._context.save(source.index, self._state)
        is_loaded = self._context.load(slot.index, self._state[:n_bytes])
        self.cut(slot.index, n_tokens if is_loaded else 0)
        self.n_copied_tokens += slot.n_computed


def shared_tokens(first: Tokens, second: Tokens) -> int:
    """Length of the longest common beginning."""
    n_tokens = min(len(first), len(second))
    differences = np.flatnonzero(first[:n_tokens] != second[:n_tokens])
    return int(differences[0]) if len(differences) else n_tokens
