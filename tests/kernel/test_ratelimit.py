from math import inf
from random import Random, SystemRandom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.ratelimit import Bucket, RateLimiter


def run(limiter: RateLimiter, now_s: float, n_calls: int) -> list[tuple[float, int]]:
    """Let calls begin as soon as they may. Returns: when and which."""
    begun: list[tuple[float, int]] = []
    while len(begun) < n_calls:
        begun += [(now_s, each) for each in limiter.advance(now_s)]
        limiter.check_invariants()
        first = limiter.first()
        if first is None:
            break
        wait_s = limiter.wait_s(first, now_s)
        assert wait_s < inf
        now_s += wait_s
    return begun


@given(
    st.integers(1, 60),
    st.integers(0, 7_000),
    st.lists(st.integers(1, 1_000), min_size=1, max_size=60),
)
def test_in_no_minute_more_begins_than_the_limits_say_and_all_begin(
    n_requests: int, n_tokens: int, sizes: list[int]
) -> None:
    size = Bucket(n_tokens).size
    sizes = [min(each, int(size)) for each in sizes] if n_tokens else sizes
    limiter = RateLimiter(n_requests, n_tokens)
    for number, each in enumerate(sizes):
        limiter.arrive(number, f"owner {number % 3}", weight=1 + number % 3, n_tokens=each)
    begun = run(limiter, 100.0, len(sizes))
    assert sorted(each for _, each in begun) == list(range(len(sizes)))
    for start, _ in begun:
        within = [each for at, each in begun if start <= at < start + 59.999]
        assert len(within) <= n_requests
        if n_tokens >= 7:
            assert sum(sizes[each] for each in within) <= n_tokens * 1.001


@pytest.mark.no_cover
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (0.5, 2.0)])
def test_owners_share_by_weight_however_many_calls_each_has_waiting(
    weights: tuple[float, float],
) -> None:
    limiter = RateLimiter(0, 60_000)
    draw = Random(SystemRandom().randrange(1 << 32))  # noqa: S311 - a load, not a secret
    taken = [0.0, 0.0]
    owner_of: dict[int, tuple[int, int]] = {}
    for number in range(2_000):
        owner = int(number >= 1_600)  # the second has a quarter of the first's, and comes later
        n_tokens = draw.randrange(1, 200)
        owner_of[number] = (owner, n_tokens)
        limiter.arrive(number, str(owner), weight=weights[owner], n_tokens=n_tokens)
    for _, number in run(limiter, 0.0, 300):
        owner, n_tokens = owner_of[number]
        taken[owner] += n_tokens
    assert taken[1] / taken[0] == pytest.approx(weights[1] / weights[0], rel=0.15)


def test_an_owner_that_was_idle_gains_nothing_and_waits_for_few() -> None:
    limiter = RateLimiter(60, 0)
    for number in range(100):
        limiter.arrive(number, "busy", weight=1, n_tokens=1)
    assert len(run(limiter, 0.0, 50)) == 50
    for number in range(100, 105):
        limiter.arrive(number, "late", weight=1, n_tokens=1)
    order = [each >= 100 for _, each in run(limiter, 100.0, 10)]
    assert order.count(True) in (4, 5)
    assert True in order[:3]


def test_a_call_larger_than_a_bucket_waits_for_a_full_one_and_leaves_a_debt() -> None:
    limiter = RateLimiter(0, 700)
    limiter.arrive(1, "a", weight=1, n_tokens=50)
    limiter.arrive(2, "a", weight=1, n_tokens=300)
    limiter.arrive(3, "b", weight=1, n_tokens=1)
    begun = {each: at for at, each in run(limiter, 0.0, 3)}
    assert begun[1] == 0.0
    assert begun[2] == pytest.approx(5.1, abs=0.2)  # 50 or 51 of 100 come back at 10 a second
    assert begun[3] in (0.0, pytest.approx(25.2, abs=0.5))


def test_what_was_not_used_is_given_back_and_who_leaves_holds_up_nobody() -> None:
    limiter = RateLimiter(0, 700)
    for number in (1, 2, 3):
        limiter.arrive(number, "a", weight=1, n_tokens=100)
    assert limiter.advance(0.0) == [1]
    assert limiter.wait_s(2, 0.0) == pytest.approx(10.0)
    assert limiter.wait_s(3, 0.0) == inf
    limiter.settle(100, 10, 0.0)
    assert limiter.wait_s(2, 0.0) == pytest.approx(1.0)
    limiter.leave(2)
    assert limiter.wait_s(3, 0.0) == pytest.approx(1.0)
    limiter.settle(10, 500, 0.0)  # more than it was taken to need
    assert limiter.wait_s(3, 0.0) == pytest.approx(50.0)
    assert limiter.n_waiting == 1


def test_a_call_that_was_never_made_gives_back_its_request() -> None:
    limiter = RateLimiter(7, 0)
    for number in (1, 2):
        limiter.arrive(number, "a", weight=1, n_tokens=100)
    assert limiter.advance(0.0) == [1]
    assert limiter.wait_s(2, 0.0) > 0
    limiter.settle(100, 0, 0.0)
    assert limiter.advance(0.0) == [2]
    limiter.check_invariants()
