from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.spawn import Spawn
from aios.abi.timers import Missed
from aios.errors import InvalidCall
from aios.kernel.timers.schedule import (
    MAX_COUNTED,
    NAMED,
    SET_BACK_S,
    TimerRow,
    following,
    set_right,
    step,
)

BERLIN = "Europe/Berlin"
SPAWN = Spawn(program="/agent", env={"KEY": "secret"})
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def local(text: str, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold).timestamp()


def minutely(*, missed: Missed = "once") -> TimerRow:
    return TimerRow(1, SPAWN, START, START + 60, cron="* * * * *", missed=missed)


def runs(cron: str, after: float, n: int) -> list[str]:
    found = []
    for _ in range(n):
        at = following(cron, BERLIN, after)
        assert at is not None
        found.append(datetime.fromtimestamp(at, ZoneInfo(BERLIN)).isoformat())
        after = at
    return found


def test_lines_that_cron_has_names_for_are_understood() -> None:
    assert runs("@daily", local("2026-06-01T12:00"), 2) == [
        "2026-06-02T00:00:00+02:00",
        "2026-06-03T00:00:00+02:00",
    ]
    for name, line in NAMED.items():
        assert following(name, BERLIN, START) == following(line, BERLIN, START)


def test_a_time_that_the_clock_skips_runs_right_after_it() -> None:
    assert runs("30 2 * * *", local("2026-03-28T12:00"), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_comes_twice_runs_once() -> None:
    found = runs("30 2 * * *", local("2026-10-24T12:00"), 2)
    assert [each[:16] for each in found] == ["2026-10-25T02:30", "2026-10-26T02:30"]
    second = local("2026-10-25T02:10", fold=1)
    assert runs("30 2 * * *", second, 1)[0].startswith("2026-10-26T02:30")


def test_a_job_of_every_hour_runs_in_both_hours_that_have_the_same_name() -> None:
    found = runs("0 * * * *", local("2026-10-25T01:30"), 3)
    assert found == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


@given(
    st.integers(1_700_000_000, 1_900_000_000),
    st.sampled_from(["*/7 * * * *", "15 2 * * *", "0 0 1 * *", "30 1 * * SUN", "5 4 3 2 *"]),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_moments_only_grow(after: int, cron: str, zone: str) -> None:
    first = following(cron, zone, after)
    assert first is not None
    second = following(cron, zone, first)
    assert second is not None
    assert after < first < second


@pytest.mark.parametrize("cron", ["", "* * *", "61 * * * *", "0 0 31 2 *", "nonsense"])
def test_what_is_no_line_of_cron_is_said(cron: str) -> None:
    with pytest.raises(InvalidCall, match="no line of cron"):
        following(cron, "UTC", START)


@pytest.mark.parametrize("zone", ["Mars/Base", "../etc/passwd", "/etc/localtime", ""])
def test_what_is_no_zone_is_said(zone: str) -> None:
    with pytest.raises(InvalidCall, match="no time zone"):
        following("* * * * *", zone, START)


def stepped(timer: TimerRow, now: float, *, max_missed: int = 100) -> tuple[bool, TimerRow]:
    found = step(timer, now, grace_s=60, max_missed=max_missed)
    assert found is not None
    return found.is_run, found.after


def test_a_timer_that_is_on_time_runs_and_is_due_no_more() -> None:
    assert step(minutely(), START + 59.9, grace_s=60, max_missed=9) is None
    is_run, after = stepped(minutely(), START + 60.1)
    assert is_run
    assert (after.next_unix_s, after.last_unix_s) == (START + 120, START + 60)
    assert (after.n_runs, after.n_missed) == (1, 0)


def test_missed_runs_are_one_run_by_default() -> None:
    is_run, after = stepped(minutely(), START + 3630)
    assert is_run
    assert (after.next_unix_s, after.n_runs, after.n_missed) == (START + 3660, 1, 59)


def test_missed_runs_are_left_out_if_asked_but_not_one_that_is_on_time() -> None:
    daily = TimerRow(1, SPAWN, START, START + 60, cron="1 0 * * *", missed="skip")
    is_run, after = stepped(daily, START + 86_400)
    assert not is_run
    assert (after.n_runs, after.n_missed, after.last_unix_s) == (0, 1, None)
    is_run, after = stepped(after, START + 86_400 + 100)
    assert is_run
    assert (after.n_runs, after.n_missed) == (1, 1)


@given(st.integers(1, 400), st.integers(1, 50))
def test_each_missed_run_is_made_if_asked_up_to_a_bound(n_due: int, max_missed: int) -> None:
    timer, now, n_steps = minutely(missed="all"), START + 60 * n_due + 30, 0
    while (found := step(timer, now, grace_s=60, max_missed=max_missed)) is not None:
        assert found.is_run
        assert found.after.last_unix_s is not None
        assert found.after.last_unix_s > (timer.last_unix_s or 0), "a moment runs twice"
        timer, n_steps = found.after, n_steps + 1
    assert n_steps == timer.n_runs == min(n_due, max_missed)
    assert timer.n_runs + timer.n_missed == n_due
    assert timer.next_unix_s == START + 60 * (n_due + 1)


def test_a_year_of_missed_seconds_is_counted_up_to_a_bound() -> None:
    timer = TimerRow(1, SPAWN, START, START + 1, cron="* * * * * *")
    _, after = stepped(timer, START + 365 * 86_400)
    assert after.n_missed == MAX_COUNTED - 1
    assert after.next_unix_s == START + 365 * 86_400 + 1


def test_of_more_than_are_counted_the_last_ones_run() -> None:
    timer = TimerRow(1, SPAWN, START, START + 1, cron="* * * * * *", missed="all")
    now, ran = START + 86_400.5, list[float | None]()
    while (found := step(timer, now, grace_s=60, max_missed=5)) is not None:
        timer = found.after
        ran.append(timer.last_unix_s)
    assert ran == [START + 86_396 + number for number in range(5)]
    late = msgspec.structs.replace(timer, next_unix_s=START + 1, missed="skip")
    found = step(late, now, grace_s=60, max_missed=5)
    assert found is not None
    assert found.is_run, "the last one is not late"


def test_a_timer_with_one_moment_is_over_after_it() -> None:
    once = TimerRow(1, SPAWN, START, START + 60)
    is_run, after = stepped(once, START + 600)
    assert is_run
    assert after.next_unix_s is None
    assert not stepped(msgspec.structs.replace(once, missed="skip"), START + 600)[0]


def test_a_clock_that_was_set_back_a_little_repeats_nothing_and_one_that_was_wrong_counts_anew() -> (
    None
):
    _, timer = stepped(minutely(), START + 60)
    assert set_right(timer, START - SET_BACK_S + 100) is None
    right = set_right(timer, START - 10 * 86_400)
    assert right is not None
    assert right.next_unix_s == START - 10 * 86_400 + 60
    assert set_right(right, START - 10 * 86_400) is None
    assert set_right(TimerRow(1, SPAWN, START, START + 60), START - 10 * 86_400) is None


def test_no_secret_is_shown() -> None:
    assert b"secret" not in msgspec.json.encode(minutely().info())
