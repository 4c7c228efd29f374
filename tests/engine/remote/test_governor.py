"""How fast an endpoint may be asked: the pure core by its rules, the shell by tasks that wait."""

from math import inf

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aios.engine.remote.governor import (
    MAX_BLOCK_S,
    MAX_WAIT_S,
    Governor,
    Governors,
    Rate,
    duration_s,
    retry_after_s,
)
from aios.errors import RateLimited


def limits(kind: str, remaining: int, reset: str, limit: int = 100) -> dict[str, str]:
    """Headers as OpenAI sends them."""
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(remaining),
        f"x-ratelimit-reset-{kind}": reset,
    }


# --- the pure core ---------------------------------------------------------------------------------------------------


def test_without_a_word_from_the_endpoint_nothing_waits() -> None:
    rate = Rate()
    for _ in range(1000):
        assert rate.wait_s(1 << 40, 0) == 0
        rate.start(1 << 40)


def test_with_no_requests_left_everybody_waits_for_the_reset() -> None:
    rate = Rate()
    rate.start(1)
    rate.succeed(limits("requests", 2, "3s"), 10)
    for _ in range(2):
        assert rate.wait_s(1, 10) == 0
        rate.start(1)
    assert rate.wait_s(1, 11) == pytest.approx(2)
    assert rate.wait_s(1, 13) == 0


def test_a_request_waits_for_the_tokens_that_it_needs() -> None:
    rate = Rate()
    rate.start(1)
    rate.succeed(limits("tokens", 500, "6m0s", limit=1000), 0)
    assert rate.wait_s(400, 0) == 0
    assert rate.wait_s(600, 0) == 360
    rate.start(400)
    assert rate.wait_s(200, 0) == 360


def test_a_request_over_the_whole_limit_waits_for_a_full_allowance_and_not_for_ever() -> None:
    rate = Rate()
    rate.start(1)
    rate.succeed(limits("tokens", 1000, "10s", limit=1000), 0)
    assert rate.wait_s(5000, 0) == 0
    rate.start(5000)
    assert rate.wait_s(5000, 0) == 10


@pytest.mark.parametrize("told_s", [1e11, 1.7e9, 1e308])
def test_nothing_that_an_endpoint_says_shuts_it_for_ever(told_s: float) -> None:
    rate = Rate()
    rate.start(1)
    rate.throttle({}, told_s, 100)
    rate.end()
    assert rate.wait_s(1, 100) == MAX_BLOCK_S
    assert rate.wait_s(1, 100 + MAX_BLOCK_S) == 0
    for kind in ("requests", "tokens"):
        rate.succeed(limits(kind, 0, f"{told_s:.0f}s"), 1000)
        assert rate.wait_s(1, 1000) == MAX_BLOCK_S
        assert rate.wait_s(1, 1000 + MAX_BLOCK_S) == 0


def test_a_429_halts_everybody_and_cuts_the_concurrency_once() -> None:
    rate = Rate()
    for _ in range(10):
        rate.start(1)
    for _ in range(4):  # the others of the same wave say the same
        rate.throttle({}, 5, 100)
        rate.end()
    assert rate.concurrency_limit == pytest.approx(7)
    assert rate.wait_s(1, 100) == 5
    assert rate.n_throttled == 4
    rate.throttle({}, None, 102)
    assert rate.concurrency_limit == pytest.approx(6 * 0.7)


def test_the_concurrency_grows_by_one_for_each_round_of_successes() -> None:
    rate = Rate(concurrency_limit=4)
    for _ in range(4):
        rate.start(1)
    assert rate.wait_s(1, 0) == inf
    for _ in range(5):
        rate.succeed({}, 0)
    assert rate.wait_s(1, 0) == 0


def test_one_request_may_always_be_under_way() -> None:
    rate = Rate()
    for now_s in range(0, 100, 5):
        rate.start(1)
        rate.throttle({}, 0, now_s)
        rate.end()
    assert rate.wait_s(1, 1000) == 0


def test_retries_add_a_quarter_to_the_load_at_most() -> None:
    rate = Rate()
    n_first = sum(rate.take_retry() for _ in range(100))
    assert n_first == 10
    for _ in range(40):
        rate.succeed({}, 0)
    assert sum(rate.take_retry() for _ in range(100)) == 10
    assert rate.n_retries == 20


class RateMachine(RuleBasedStateMachine):
    """Whatever an endpoint says, the counts hold and nobody waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = Rate()
        self.now_s = 0.0

    @rule(n_tokens=st.integers(0, 10_000))
    def start(self, n_tokens: int) -> None:
        if self.rate.wait_s(n_tokens, self.now_s) == 0:
            self.rate.start(n_tokens)

    @precondition(lambda self: self.rate.n_in_flight > 0)
    @rule(
        remaining=st.integers(0, 5),
        reset_s=st.integers(0, 30),
        kind=st.sampled_from(["requests", "tokens"]),
    )
    def succeed(self, remaining: int, reset_s: int, kind: str) -> None:
        self.rate.succeed(limits(kind, remaining, f"{reset_s}s"), self.now_s)
        self.rate.end()

    @precondition(lambda self: self.rate.n_in_flight > 0)
    @rule(wait_s=st.one_of(st.none(), st.floats(0, 50)))
    def throttle(self, wait_s: float | None) -> None:
        self.rate.throttle({}, wait_s, self.now_s)
        self.rate.end()

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def holds(self) -> None:
        self.rate.check_invariants()
        if self.rate.n_in_flight == 0:
            assert (
                self.rate.wait_s(10, self.now_s) <= 50.001
            )  # a sum less one of its parts is not always the other
            assert self.rate.wait_s(10, self.now_s + 51) == 0


TestRate = RateMachine.TestCase


# --- what headers say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("0", 0), ("12.5", 12.5), (" 3s ", 3), ("2m", 120),
        (None, None), ("", None), ("soon", None), ("-3", None), ("inf", None), ("nan", None), ("5m5", None),
    ],
)  # fmt: skip
def test_durations_are_read_in_every_form(text: str | None, seconds: float | None) -> None:
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=20))
def test_no_header_breaks_the_reader(text: str) -> None:
    for found in (duration_s(text), retry_after_s({"retry-after": text, "date": text})):
        assert found is None or 0 <= found < inf


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT",
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT",
                "date": "Wed, 21 Oct 2015 07:28:30 GMT",
            },
            0,
        ),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT",
                "date": "Mon, 01 Jan 99999999999 00:00:00 GMT",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


# --- the shell -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_waiters_go_in_the_order_in_which_they_came() -> None:
    governor = Governor()
    governor.rate.concurrency_limit = 1
    order: list[int] = []

    async def ask(i: int) -> None:
        await governor.enter(1)
        order.append(i)
        await anyio.lowlevel.checkpoint()
        governor.leave()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for i in range(5):
                tasks.start_soon(ask, i)
                await anyio.wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4]
    assert governor.statistics().n_in_flight == governor.statistics().n_waiting == 0


@pytest.mark.anyio
async def test_whoever_gives_up_waiting_lets_the_next_one_pass() -> None:
    governor = Governor()
    governor.rate.concurrency_limit = 1
    await governor.enter(1)
    scope = anyio.CancelScope()
    passed = anyio.Event()

    async def give_up() -> None:
        with scope:
            await governor.enter(1)

    async def wait() -> None:
        await governor.enter(1)
        passed.set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert not passed.is_set()
            governor.leave()
            await passed.wait()
    assert governor.statistics().n_in_flight == 1


@pytest.mark.anyio
async def test_a_pause_is_waited_for() -> None:
    governor = Governor()
    await governor.enter(1)
    governor.throttle({}, 0.1)
    governor.leave()
    started_s = anyio.current_time()
    with anyio.fail_after(30):
        await governor.enter(1)
    assert anyio.current_time() - started_s >= 0.09


@pytest.mark.anyio
async def test_a_long_pause_is_told_at_once() -> None:
    governor = Governor()
    await governor.enter(1)
    governor.throttle({}, 2 * MAX_WAIT_S)
    governor.leave()
    with anyio.fail_after(30), pytest.raises(RateLimited) as caught:
        await governor.enter(1)
    assert caught.value.retry_after_s == pytest.approx(2 * MAX_WAIT_S, rel=0.1)
    assert governor.statistics().n_in_flight == governor.statistics().n_waiting == 0


def test_governors_are_shared_by_address_and_key_and_go_with_their_last_user() -> None:
    governors = Governors()
    one = governors.get_governor("http://a/v1", "k")
    assert governors.get_governor("http://a/v1", "k") is one
    assert governors.get_governor("http://a/v1", "other") is not one
    assert governors.get_governor("http://b/v1", "k") is not one
    name = id(one)
    del one
    assert name != 0
    assert len(governors._governors) == 0
