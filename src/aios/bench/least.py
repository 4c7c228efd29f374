"""The least number of prompt tokens that a load could have computed: each distinct page once. Pure.

Between conversations pages are shared; within one, a turn goes on from the very token where the turn before it ended, its
answer included, but for the answer's last token, which is in nobody's cells. The last token of each prompt is always computed,
for without it nobody knows what comes next.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile

PAGE_TOKENS = 32

Tokens = Sequence[int]


def least_computed(conversations: Iterable[Sequence[Tokens]], *, answer_tokens: int) -> int:
    """Tokens that somebody must compute who forgets nothing.

    Args:
        conversations: The prompts of each, in order, as token ids.
        answer_tokens: Tokens of each answer.
    """
    seen: set[int] = set()
    n_least = 0
    for prompts in conversations:
        before: Tokens = ()
        for prompt in prompts:
            n_known = max(
                _n_of_pages(prompt, seen), _n_of_turn(before, prompt, answer_tokens=answer_tokens)
            )
            n_least += len(prompt) - min(n_known, len(prompt) - 1)
            before = prompt
    return n_least


def _n_of_pages(prompt: Tokens, seen: set[int]) -> int:
    """Tokens of the prompt in pages that were seen; all its full pages are seen from now on."""
    names: list[int] = []
    for end in range(PAGE_TOKENS, len(prompt) + 1, PAGE_TOKENS):
        parent = names[-1] if names else 0
        names.append(hash((parent, tuple(prompt[end - PAGE_TOKENS : end]))))
    n_tokens = PAGE_TOKENS * sum(1 for _ in takewhile(seen.__contains__, names))
    seen.update(names)
    return n_tokens


def _n_of_turn(before: Tokens, prompt: Tokens, *, answer_tokens: int) -> int:
    """Tokens of the prompt that the turn before it left in its cells."""
    pairs = zip(before, prompt, strict=False)
    n_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    goes_on = 0 < len(before) == n_same
    return n_same + answer_tokens - 1 if goes_on else n_same
