"""From logits to a token: bias, penalties, filters, and one random number keyed by (seed, position).

The number depends on nothing but the seed and the position of the token in its sequence, so a generation comes out the
same however often it was suspended and whoever shared its batches. The order is llama.cpp's: `logit_bias`, penalties,
top-k, top-p, min-p, temperature. Pure but for numpy.
"""

import math

import numpy as np
from numpy.typing import NDArray

from aios.abi.types import Sampling

Logits = NDArray[np.float32]
Tokens = NDArray[np.int32]
Ids = NDArray[np.intp]
Values = NDArray[np.float64]

MASK_64 = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MAX_TOKEN = 1 << 31
SMALLEST = 1e-6  # of temperatures and penalties: less would only overflow
REACHES = (6.0, 12.0, 18.0, 24.0)
"""Distances below the best logit in which to look for candidates before looking at all: sorting a whole vocabulary takes
milliseconds, comparing it with a number takes microseconds, and the likeliest 40 tokens are nearly always near."""


class Sampler:
    """Chooses the tokens of one generation. It keeps no state, so nothing of it needs to be suspended.

    Cost: 0.05 ms a token for a vocabulary of 49,152 and the default filters, 0.005 ms greedy.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._seed = _mix(sampling.seed or 0)
        bias = {t: b for t, b in sampling.logit_bias.items() if 0 <= t < MAX_TOKEN}
        self._bias_ids = np.fromiter(bias, np.intp, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))
        self._has_penalties = (
            sampling.repeat_penalty != 1
            or sampling.frequency_penalty != 0
            or sampling.presence_penalty != 0
        )

    def choose(self, logits: Logits, tokens: Tokens) -> int:
        """Choose the token that follows `tokens`, the prompt and the output so far. Writes to `logits`.

        Raises:
            ValueError: No token has a finite logit.
        """
        self.adjust(logits, tokens)
        likeliest = int(logits.argmax())
        best = float(logits[likeliest])
        if not math.isfinite(best):
            raise ValueError("no token may come next")
        if self.sampling.temperature < SMALLEST or self.sampling.top_k == 1:
            return likeliest
        ids, values = self.candidates(logits, best)
        sums = np.cumsum(np.exp((values - best) / self.sampling.temperature))
        mark = self.uniform(len(tokens)) * sums[-1]
        return int(ids[min(int(sums.searchsorted(mark, side="right")), len(ids) - 1)])

    def adjust(self, logits: Logits, tokens: Tokens) -> None:
        """Add the bias, then the penalties for the last `penalty_window_tokens` of `tokens`, in place."""
        if len(self._bias_ids):
            known = self._bias_ids < len(logits)
            logits[self._bias_ids[known]] += self._bias[known]
        if self._has_penalties:
            sampling = self.sampling
            recent = tokens[max(0, len(tokens) - sampling.penalty_window_tokens) :]
            seen, counts = np.unique(recent, return_counts=True)
            values = logits[seen]
            repeat = np.float32(max(sampling.repeat_penalty, SMALLEST))
            values = np.where(values > 0, values / repeat, values * repeat)
            logits[seen] = values - counts * sampling.frequency_penalty - sampling.presence_penalty

    def candidates(self, logits: Logits, best: float) -> tuple[Ids, Values]:
        """Ids and logits of the tokens that the filters leave, at least one.

        The likeliest stands first and ties go by id, unless no filter is on: then they come by id alone, for the order
        does not matter and sorting costs 4 ms.
        """
        sampling = self.sampling
        if sampling.top_k > 0:
            ids, values = find_top(logits, sampling.top_k, best)
            total = float(np.exp(values - best).sum())
        elif sampling.top_p < 1:
            ids, values, total = _find_mass(logits, sampling.top_p, best)
        else:
            ids, values = _find_above(logits, best + _log(sampling.min_p))
            return ids, values
        n_kept = len(ids)
        if sampling.top_p < 1:
            sums = np.cumsum(np.exp(values - best))
            n_kept = int(sums.searchsorted(sampling.top_p * total, side="left")) + 1
        if sampling.min_p > 0:
            n_kept = min(n_kept, int(np.count_nonzero(values >= best + _log(sampling.min_p))))
        n_kept = max(n_kept, 1)
        return ids[:n_kept], values[:n_kept]

    def uniform(self, position: int) -> float:
        """A number in [0, 1) for the token at `position`: the same whenever it is asked for."""
        return (_mix(self._seed + (position + 1) * GOLDEN_GAMMA) >> 11) * 2.0**-53


def find_top(logits: Logits, n_top: int, best: float) -> tuple[Ids, Values]:
    """The `n_top` highest finite logits, highest first, ties by id; fewer if there are not so many."""
    for reach in REACHES:
        ids = np.flatnonzero(logits >= best - reach)
        if len(ids) >= n_top:
            break
    else:
        ids = np.flatnonzero(logits > -np.inf)
    if (
        len(ids) > n_top > 0
    ):  # do not sort what is cut off anyway; those that tie with the last stay
        values = logits[ids]
        ids = ids[values >= np.partition(values, len(ids) - n_top)[len(ids) - n_top]]
    return _sorted(logits, ids, n_top)


def log_probabilities(logits: Logits) -> Logits:
    """The natural logarithm of the softmax."""
    shifted: Logits = logits - logits.max()
    shifted -= np.log(np.exp(shifted).sum(dtype=np.float64))
    return shifted


def _find_mass(logits: Logits, top_p: float, best: float) -> tuple[Ids, Values, float]:
    """Enough of the highest logits to hold `top_p` of the probability, highest first; and the mass of all."""
    total = float(np.exp(logits - np.float32(best)).sum(dtype=np.float64))
    for reach in REACHES:
        ids = np.flatnonzero(logits >= best - reach)
        if np.exp(logits[ids].astype(np.float64) - best).sum() >= top_p * total:
            break
    else:
        ids = np.flatnonzero(logits > -np.inf)
    return *_sorted(logits, ids, len(ids)), total


def _find_above(logits: Logits, bound: float) -> tuple[Ids, Values]:
    ids = np.flatnonzero((logits >= bound) & (logits > -np.inf))
    return ids, logits[ids].astype(np.float64)


def _sorted(logits: Logits, ids: Ids, n_top: int) -> tuple[Ids, Values]:
    values = logits[ids].astype(np.float64)
    order = np.argsort(-values, kind="stable")[:n_top]
    return ids[order], values[order]


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _mix(number: int) -> int:
    """The finaliser of splitmix64: every bit of the input changes half the bits of the output."""
    number &= MASK_64
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK_64
    return number ^ (number >> 31)
