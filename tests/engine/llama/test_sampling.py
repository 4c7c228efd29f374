import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aios.abi.types import Sampling
from aios.engine.llama.sampling import Logits, Sampler, Tokens, find_top, log_probabilities

NO_TOKENS = np.empty(0, np.int32)
N_VOCAB = 40

# Multiples of 1/4, so that ties happen; some tokens are masked, as a grammar does it.
rows = arrays(
    np.float32,
    N_VOCAB,
    elements=st.one_of(st.integers(-120, 120).map(lambda n: n / 4), st.just(-math.inf)),
).filter(lambda row: bool(np.isfinite(row).any()))
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 5, 39, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.5, -0.5]),
    presence_penalty=st.sampled_from([0.0, 1.0]),
    penalty_window_tokens=st.sampled_from([0, 1, 4, 64]),
    logit_bias=st.dictionaries(
        st.integers(-5, N_VOCAB + 5) | st.just(2**70),
        st.sampled_from([-100.0, 2.5, 50.0]),
        max_size=3,
    ),
    seed=st.integers(0, 2**63 - 1),
)
outputs = st.lists(st.integers(0, N_VOCAB - 1), max_size=10).map(lambda t: np.array(t, np.int32))


def plain_adjusted(row: Logits, tokens: Tokens, sampling: Sampling) -> list[float]:
    """Bias and penalties one token at a time."""
    values = [float(value) for value in row]
    window = [int(t) for t in tokens][-sampling.penalty_window_tokens or len(tokens) :]
    counts = Counter(window if sampling.penalty_window_tokens else [])
    for token in range(N_VOCAB):
        values[token] += sampling.logit_bias.get(token, 0.0)
        if token in counts:
            value, repeat = values[token], sampling.repeat_penalty
            value = value / repeat if value > 0 else value * repeat
            value -= counts[token] * sampling.frequency_penalty + sampling.presence_penalty
            values[token] = value
    return values


def plain_kept(values: list[float], sampling: Sampling) -> list[int]:
    """The filters one after the other, on a sorted list, as llama.cpp does it."""
    ids = sorted((t for t in range(N_VOCAB) if values[t] > -math.inf), key=lambda t: -values[t])
    best = values[ids[0]]
    if sampling.top_k:
        ids = ids[: sampling.top_k]
    weights = [math.exp(values[t] - best) for t in ids]
    if sampling.top_p < 1:
        mass, total = 0.0, sum(weights)
        for n, weight in enumerate(weights, start=1):
            mass += weight
            if mass >= sampling.top_p * total:
                ids = ids[:n]
                break
    return [t for t in ids if math.exp(values[t] - best) >= sampling.min_p] or ids[:1]


@settings(deadline=None)
@given(rows, samplings, outputs)
def test_bias_and_penalties_are_those_of_the_plain_implementation(
    row: Logits, sampling: Sampling, tokens: Tokens
) -> None:
    expected = plain_adjusted(row, tokens, sampling)
    Sampler(sampling).adjust(row, tokens)
    assert row.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(deadline=None)
@given(rows, samplings)
def test_the_filters_keep_what_the_plain_implementation_keeps(
    row: Logits, sampling: Sampling
) -> None:
    values = [float(value) for value in row]
    expected = plain_kept(values, sampling)
    # A sum that meets its bound to the last bit may fall on either side of it.
    for nudged in (sampling.top_p * 0.999999, sampling.top_p * 1.000001):
        if sampling.top_p < 1:
            other = Sampling(top_k=sampling.top_k, top_p=min(nudged, 1.0), min_p=sampling.min_p)
            assume(plain_kept(values, other) == expected)
    ids, kept = Sampler(sampling).candidates(row, float(row.max()))
    assert sorted(ids.tolist()) == sorted(expected)
    assert kept.tolist() == [values[int(token)] for token in ids]
    if sampling.top_k or sampling.top_p < 1:
        assert ids.tolist() == expected


@settings(deadline=None)
@given(rows, samplings, outputs)
def test_the_choice_is_the_token_on_which_the_number_falls(
    row: Logits, sampling: Sampling, tokens: Tokens
) -> None:
    sampler = Sampler(sampling)
    values = row.copy()
    sampler.adjust(values, tokens)
    ids, kept = sampler.candidates(values, float(values.max()))
    weights = [math.exp((v - float(values.max())) / sampling.temperature) for v in kept]
    mark = sampler.uniform(len(tokens)) * sum(weights)
    chosen = sampler.choose(row, tokens)
    place = ids.tolist().index(chosen)
    assert sum(weights[:place]) <= mark * (1 + 1e-9)
    assert mark <= sum(weights[: place + 1]) * (1 + 1e-9)


@settings(deadline=None)
@given(rows, outputs, st.integers(0, 2**63 - 1))
def test_temperature_0_takes_the_likeliest_whatever_the_filters_say(
    row: Logits, tokens: Tokens, seed: int
) -> None:
    likeliest = int(row.argmax())
    assert Sampler(Sampling(temperature=0, seed=seed)).choose(row, tokens) == likeliest


@settings(deadline=None)
@given(rows, samplings)
def test_a_masked_token_is_never_chosen(row: Logits, sampling: Sampling) -> None:
    masked = set(np.flatnonzero(np.isneginf(row)).tolist())
    assert Sampler(sampling).choose(row, NO_TOKENS) not in masked


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 1_000_000))
def test_the_number_depends_on_seed_and_position_alone(seed: int, position: int) -> None:
    number = Sampler(Sampling(seed=seed)).uniform(position)
    assert 0 <= number < 1
    assert number == Sampler(Sampling(temperature=0, seed=seed)).uniform(position)


def test_numbers_are_spread_evenly_over_positions_and_over_seeds() -> None:
    for numbers in (
        [Sampler(Sampling(seed=1)).uniform(position) for position in range(4000)],
        [Sampler(Sampling(seed=seed)).uniform(7) for seed in range(4000)],
    ):
        counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert ((counts - 200) ** 2 / 200).sum() < 50  # chi squared, 19 degrees: p < 0.0002
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.06


def test_tokens_come_as_often_as_their_probability_says() -> None:
    row = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=3))
    output = np.zeros(4000, np.int32)
    counts = Counter(sampler.choose(row.copy(), output[:n]) for n in range(4000))
    assert [counts[t] / 4000 for t in range(4)] == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 1e-30])
def test_tiny_temperatures_and_penalties_overflow_nothing(tiny: float) -> None:
    row = np.array([-3, 5, 4, -np.inf], np.float32)
    sampling = Sampling(temperature=tiny, repeat_penalty=tiny, seed=1)
    assert Sampler(sampling).choose(row, np.array([0, 1, 1, 3], np.int32)) == 1


@pytest.mark.parametrize("value", [-math.inf, math.nan, math.inf])
def test_without_a_finite_logit_nothing_is_chosen(value: float) -> None:
    with pytest.raises(ValueError, match="no token"):
        Sampler(Sampling(seed=1)).choose(np.full(8, value, np.float32), NO_TOKENS)


@pytest.mark.parametrize("top_k", [3, 50, 3000])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_looking_near_the_best_finds_the_same_as_looking_at_all(top_k: int, scale: float) -> None:
    row = (np.random.default_rng(5).standard_normal(20_000) * scale).astype(np.float32)
    ids, values = find_top(row, top_k, float(row.max()))
    order = np.argsort(-row, kind="stable")[:top_k]
    assert ids.tolist() == order.tolist()
    assert values.tolist() == row[order].tolist()


@settings(deadline=None)
@given(rows)
def test_probabilities_sum_up_to_one(row: Logits) -> None:
    logprobs = log_probabilities(row)
    assert np.exp(logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)
    assert (logprobs <= 1e-6).all()
    assert int(logprobs.argmax()) == int(row.argmax())
