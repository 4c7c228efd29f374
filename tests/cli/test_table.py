"""The live table: which rows, which columns, in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.cli.rows import ended, process

from aios.abi.calls import KernelInfo
from aios.abi.types import EngineInfo, Kind, PagesHeld, ProcessInfo, State, Usage
from aios.cli.table import (
    FIELDS,
    GAP,
    SORT_KEYS,
    Rates,
    Screen,
    Snapshot,
    SortKey,
    is_shown,
    shown_fields,
    sorted_processes,
)


def engine(n_out: int = 0) -> EngineInfo:
    usage = Usage(1000, 200, n_out)
    return EngineInfo(
        name="local",
        kind="llama",
        model="small",
        window_tokens=4096,
        n_slots=8,
        n_running=3,
        n_queued=2,
        capabilities=("chat",),
        usage=usage,
        n_prompt_tokens_computed=800,
    )


def info(uptime_s: float = 10.0, *engines: EngineInfo) -> KernelInfo:
    return KernelInfo(
        version="9.9",
        os_pid=1,
        home="h",
        started_unix_s=1000.0,
        uptime_s=uptime_s,
        n_processes=3,
        n_calls=12_345,
        n_in_flight=2,
        n_journal_records=0,
        engines=engines,
    )


def drawn(
    processes: list[ProcessInfo],
    *,
    width: int = 140,
    height: int = 40,
    screen: Screen | None = None,
) -> list[str]:
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as capture:
        shown = (screen or Screen()).draw(
            Snapshot(info(10.0, engine(5)), tuple(processes)), width=width, height=height
        )
        console.print(shown)
    return capture.get().splitlines()


def test_the_header_tells_of_kernel_and_engine() -> None:
    first, second, *_ = drawn([process(2, state=State.RUNNING), process(3), process(4)])
    assert first == "aios 9.9  up 10s  3 processes: 1 running, 2 waiting  12k calls, 2 in flight"
    assert second == "local (llama, small)  3 of 8 slots, 2 queued  1.0k in, 200 cached, 5 out"


def test_a_row_has_the_figures_of_its_process() -> None:
    row = process(
        7,
        "reader",
        state=State.RUNNING,
        activity="chat",
        nice=5,
        n_calls=3,
        usage=Usage(1200, 300, 50),
        ran_s=2.0,
        waited_s=0.5,
        n_preemptions=4,
        place=0,
        level=2,
        pages=PagesHeld(40, 30, 6, 10),
    )
    titles, cells = (line.split() for line in drawn([row], width=200)[2:4])
    wide = dict(zip(titles, cells, strict=True))
    assert {title: wide[title] for title in ("LEVEL", "PAGES", "RAM", "DISK", "SHARED")} == {
        "LEVEL": "2",
        "PAGES": "40",
        "RAM": "30",
        "DISK": "6",
        "SHARED": "25%",
    }
    titles, cells = (line.split() for line in drawn([row])[2:4])
    assert dict(zip(titles, cells, strict=True)) == {
        "PID": "7",
        "NAME": "reader",
        "STATE": "running",
        "ACTIVITY": "chat",
        "NICE": "5",
        "PLACE": "turn",
        "CALLS": "3",
        "IN": "1.2k",
        "CACHED": "300",
        "OUT": "50",
        "TOK/S": "25",
        "WAITED": "0.5s",
        "RAN": "2.0s",
        "PREEMPT": "4",
        "AGE": "10s",
    }


def test_several_rows_have_totals_below() -> None:
    lines = drawn([process(2, usage=Usage(1, 0, 2)), process(3, usage=Usage(10, 0, 20))])
    assert lines[-1].split()[:1] == ["total"]
    assert "11" in lines[-1].split()
    assert "22" in lines[-1].split()


def test_an_ended_process_shows_its_status() -> None:
    assert "exit 137" in drawn([ended(2, status=137)])[-1]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    rows = [
        process(n, "a-name-that-is-rather-long-" * 2, activity="count_tokens") for n in range(2, 6)
    ]
    assert max(len(line) for line in drawn(rows, width=width)) <= width


@pytest.mark.parametrize("height", [8, 12, 24])
def test_the_screen_is_never_overfull_and_says_what_it_leaves_out(height: int) -> None:
    lines = drawn([process(n) for n in range(2, 60)], height=height, screen=Screen(footer="q quit"))
    assert len(lines) <= height
    assert any(line.startswith("... and ") for line in lines)
    assert lines[-1] == "q quit"


@given(st.integers(20, 300))
def test_a_wider_terminal_never_shows_fewer_columns(width: int) -> None:
    narrow, wide = shown_fields(width), shown_fields(width + 1)
    assert [one for one in wide if one in narrow] == narrow
    assert sum(one.width + GAP for one in wide) <= width + 1 or all(one.rank == 0 for one in wide)
    assert [one for one in FIELDS if one in wide] == wide


@given(st.permutations(range(2, 8)), st.sampled_from(SORT_KEYS))
def test_the_order_depends_on_the_processes_alone(pids: list[int], key: SortKey) -> None:
    processes = [
        process(pid, ran_s=pid % 3, waited_s=pid % 2, usage=Usage(pid % 4, 0, 0))
        if pid % 5
        else ended(pid)
        for pid in pids
    ]
    ordered = sorted_processes(processes, key)
    assert ordered == sorted_processes(sorted(processes, key=lambda p: p.pid), key)
    assert [p.exit is not None for p in ordered] == sorted(p.exit is not None for p in ordered)


def test_the_most_comes_first_by_each_key() -> None:
    few, much = process(2, "b"), process(3, "a", ran_s=9, waited_s=9, usage=Usage(9, 0, 9))
    for key in ("ran", "waited", "tokens", "name"):
        assert sorted_processes([few, much], key)[0] is much
    assert sorted_processes([much, few], "pid")[0] is few


def test_rates_come_from_the_last_seconds() -> None:
    rates = Rates()
    assert rates.update(info(0.0, engine(0))) == {}
    assert rates.update(info(1.0, engine(100))) == {"local": 100.0}
    seen = [rates.update(info(float(second), engine(100))) for second in range(2, 20)]
    assert seen[0]["local"] > 0
    assert seen[-1] == {"local": 0.0}


def test_rates_survive_a_clock_that_stands() -> None:
    rates = Rates()
    assert rates.update(info(1.0, engine(5))) == {}
    assert rates.update(info(1.0, engine(9))) == {}


def test_init_is_not_shown() -> None:
    assert not is_shown(process(1, "init", kind=Kind.INIT))
    assert is_shown(process(2))
