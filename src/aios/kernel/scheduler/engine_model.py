"""An engine as the simulator sees it: rates that were measured; and how clients come back to one that refused them. Pure."""

from itertools import pairwise

from msgspec import Struct

from aios.abi.trace import TracedCall
from aios.kernel.scheduler.residence import ALL_IN_MEMORY, MemoryModel


class EngineModel(Struct, frozen=True):
    """How fast an engine is. The defaults were measured: a model of 135 M parameters on two cores, with flash attention (ADR 0021).

    They are kept, so that figures of other days compare. Under plain attention, on a machine whose speed differs by a factor of two
    between days: prefill 226 to 245 tokens a second, decode 74 (1 sequence), 107 (4) and 113 (8), 6.8 us a token paged in, 11.7 ms to
    suspend and resume 450 tokens. A prompt token costs half of one that 8 sequences decode (0.71 here), so long prompts weigh a third
    less against answers than in this model. With those rates the page on choosing a policy comes to the same advice.

    Args:
        n_slots: Sequences at once.
        prefill_tokens_per_s: Prompt tokens, whoever they belong to.
        decode_tokens_per_s: (sequences at once, output tokens a second of all of them); straight lines between.
        chunk_tokens: The most that a prefill step computes.
        n_decodes: Decode steps between two prefill steps while both have work; more for urgent ones, as in `engine/batch.py`.
        suspend_s: Taking a sequence out of its slot.
        resume_s: Putting one back, beside its pages.
        page_in_s: A token of context whose pages are put into a slot.
        memory: Where contexts are that are in no slot.
        budget_tokens: What the contexts of calls that have begun may take together; None: no limit.
    """

    n_slots: int = 8
    prefill_tokens_per_s: float = 314.0
    decode_tokens_per_s: tuple[tuple[int, float], ...] = (
        (1, 128.0),
        (4, 197.0),
        (8, 224.0),
        (16, 231.0),
    )
    chunk_tokens: int = 256
    n_decodes: int = 2
    suspend_s: float = 0.0063
    resume_s: float = 0.0014
    page_in_s: float = 2.7e-6
    memory: MemoryModel = ALL_IN_MEMORY
    budget_tokens: int | None = None

    def decode_rate(self, n_sequences: int) -> float:
        """Output tokens a second of so many sequences together."""
        points = self.decode_tokens_per_s
        if n_sequences <= points[0][0]:
            return points[0][1]
        for (low, slow), (high, fast) in pairwise(points):
            if n_sequences <= high:
                return slow + (fast - slow) * (n_sequences - low) / (high - low)
        return points[-1][1]

    def alone_s(self, call: TracedCall) -> float:
        """How long a call takes when there is no other."""
        n_new = call.prompt_tokens - call.cached_tokens
        decode_s = call.output_tokens / self.decode_rate(1)
        return n_new / self.prefill_tokens_per_s + call.cached_tokens * self.page_in_s + decode_s


class BackOff(Struct, frozen=True):
    """When a call that found all slots taken comes back: doubled with each refusal, give or take a half."""

    first_s: float = 0.1
    longest_s: float = 5.0

    def delay_s(self, ticket_id: int, n_refusals: int) -> float:
        """After so many refusals, counted from 1. The same for the same arguments."""
        spread = ((ticket_id * 2654435761 + n_refusals * 40503) & 0xFFFF) / 0x10000
        return min(self.first_s * 2.0 ** min(n_refusals - 1, 30), self.longest_s) * (0.5 + spread)
