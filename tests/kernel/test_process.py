import time
from contextlib import AsyncExitStack

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.abi.approvals import WAITS_FOR
from aios.abi.calls import Stop
from aios.abi.types import Exit, Kind, Right, State
from aios.errors import Conflict, NotFound, ProcessGone, ResourceExhausted
from aios.kernel import signals
from aios.kernel.clock import SystemClock
from aios.kernel.process import INIT_PID, Process
from aios.kernel.process_table import KEPT_RESULT_CHARS, MAX_GENERATIONS, ProcessTable


def table_of(*, max_alive: int = 1000, max_exited: int = 1000) -> ProcessTable:
    table = ProcessTable(
        clock=SystemClock(), max_alive=max_alive, max_exited=max_exited, max_log_bytes=1 << 16
    )
    add(table, "init", None)
    return table


def add(table: ProcessTable, name: str, parent: Process | None) -> Process:
    return table.add(name, kind=Kind.TASK, parent=parent, rights=frozenset(Right), owner="me")


def test_pids_grow_and_are_never_given_twice() -> None:
    table = table_of(max_exited=0)
    init = next(iter(table))
    first = add(table, "a", init)
    table.end(first, Exit(0))
    assert add(table, "a", init).pid == first.pid + 1
    with pytest.raises(NotFound, match=f"no process {first.pid}"):
        table.get(first.pid)


def test_a_name_is_unique_among_the_living_and_free_after_the_end() -> None:
    table = table_of()
    init = next(iter(table))
    first, second = add(table, "worker", init), add(table, "worker", init)
    assert second.name == f"worker-{second.pid}"
    table.end(first, Exit(0))
    assert add(table, "worker", init).name == "worker"


def test_a_name_that_looks_like_a_numbered_one_is_not_given_twice() -> None:
    table = table_of()
    init = next(iter(table))
    clever = add(table, "worker-4", init)
    add(table, "worker", init)
    fourth = add(table, "worker", init)
    table.check_invariants()
    assert table.find_named("worker-4") is clever
    assert table.find_named(fourth.name) is fourth


def test_orphans_become_children_of_init() -> None:
    table = table_of()
    init = next(iter(table))
    parent = add(table, "parent", init)
    child = add(table, "child", parent)
    table.end(parent, Exit(0))
    assert (child.ppid, child.payer) == (init.pid, parent.pid)
    assert child.pid in init.children
    table.check_invariants()


def test_an_ended_process_is_kept_as_long_as_it_is_needed() -> None:
    needed = set[int]()
    table = table_of(max_exited=1)
    table.is_needed = lambda pid: pid in needed
    init = next(iter(table))
    first, second, third, fourth = (add(table, name, init) for name in "abcd")
    needed.add(first.pid)
    for process in (first, second, third):
        table.end(process, Exit(0))
    assert [each.pid for each in table if not each.is_alive] == [first.pid, third.pid]
    needed.clear()
    table.end(fourth, Exit(0))
    assert [each.pid for each in table if not each.is_alive] == [fourth.pid]
    table.check_invariants()


def test_of_results_over_the_room_for_all_the_oldest_large_ones_are_forgotten_with_their_processes() -> (
    None
):
    table = table_of()
    init = next(iter(table))
    results = ["a" * (KEPT_RESULT_CHARS // 2), "b", "c" * (KEPT_RESULT_CHARS // 2), "", "d" * 9]
    ended = [add(table, "ends", init) for _ in results]
    for process, result in zip(ended, results, strict=True):
        table.end(process, Exit(0, "", result))
        table.check_invariants()
    assert [table.find(each.pid) is None for each in ended] == [True, False, False, False, False]


def test_a_full_table_refuses_and_says_how_to_mend_it() -> None:
    table = table_of(max_alive=2)
    init = next(iter(table))
    add(table, "a", init)
    with pytest.raises(ResourceExhausted, match="2 processes are alive") as caught:
        add(table, "b", init)
    assert "kernel.max_processes" in caught.value.hint


def test_generations_are_bounded_for_each_costs_those_below_it() -> None:
    """A program that starts its successor and ends would make each end and check of others longer, without end."""
    table = table_of(max_exited=0)
    last = init = next(iter(table))
    for _ in range(MAX_GENERATIONS):
        above, last = last, add(table, "again", last)
        if above is not init:
            table.end(above, Exit(0))
    with pytest.raises(ResourceExhausted, match="60 generations") as refused:
        add(table, "again", last)
    assert "restart" in refused.value.hint
    add(table, "again", init)
    table.check_invariants()


def test_a_process_that_exits_can_have_no_children() -> None:
    table = table_of()
    parent = add(table, "parent", next(iter(table)))
    parent.exiting = Exit(3, "done for")
    with pytest.raises(ProcessGone, match="status 3: done for"):
        add(table, "child", parent)


def test_init_does_not_end() -> None:
    table = table_of()
    with pytest.raises(Conflict):
        table.end(next(iter(table)), Exit(0))


@pytest.mark.anyio
async def test_the_state_follows_from_what_the_calls_do() -> None:
    table = table_of()
    process = add(table, "a", next(iter(table)))
    states = [process.state]
    run = process.begin("chat", max_calls=2)
    run.waiting_since_s = 1.0
    states.append(process.state)
    run.waiting_since_s, run.running_since_s = None, 2.0
    states.append(process.state)
    process.set_stopped(True)
    states.append(process.state)
    process.end(run)
    table.end(process, Exit(0))
    states.append(process.state)
    expected = [State.WAITING, State.READY, State.RUNNING, State.STOPPED, State.EXITED]
    assert states == expected


@pytest.mark.anyio
async def test_calls_in_flight_are_bounded() -> None:
    process = add(table_of(), "a", None)
    process.begin("chat", max_calls=1)
    with pytest.raises(ResourceExhausted, match="1 calls in flight"):
        process.begin("chat", max_calls=1)


@pytest.mark.anyio
async def test_the_row_of_ps_adds_what_calls_in_flight_have_cost() -> None:
    process = add(table_of(), "a", None)
    done = process.begin("chat", max_calls=9)
    done.waited_s, done.ran_s, done.n_preemptions = 1.0, 2.0, 1
    process.end(done)
    live = process.begin("embed", max_calls=9)
    live.waited_s, live.running_since_s, live.n_preemptions = 0.5, 10.0, 2
    row = process.info(now_s=14.0)
    assert (row.waited_s, row.ran_s, row.n_preemptions) == (1.5, 6.0, 3)
    assert (row.activity, row.n_calls) == ("embed", 2)


@pytest.mark.anyio
async def test_ps_shows_a_call_that_waits_for_a_human_before_newer_ones() -> None:
    process = add(table_of(), "a", None)
    with process.begin("tool_run", max_calls=9).saying("base/launch"):
        process.begin("ps", max_calls=9)
        assert process.info(0.0).activity == "ps"
    asking = process.begin("tool_run", max_calls=9)
    process.begin("ps", max_calls=9)
    with asking.saying(f"base/launch {WAITS_FOR}7"):
        assert process.info(0.0).activity == "tool_run base/launch waits for approval 7"


@pytest.mark.anyio
async def test_quiet_means_that_every_other_call_is_parked() -> None:
    process = add(table_of(), "a", None)
    own, other = process.begin("stop", max_calls=9), process.begin("chat", max_calls=9)
    order: list[str] = []

    async def wait_quiet() -> None:
        await process.wait_quiet(own)
        order.append("quiet")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_quiet)
            await anyio.wait_all_tasks_blocked()
            order.append("parking")
            with other.parked():
                await anyio.wait_all_tasks_blocked()
    assert order == ["parking", "quiet"]


@pytest.mark.anyio
async def test_stop_waits_for_a_tree_that_cannot_be_still_once_and_looks_ever_less_often(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "STILL_S", 0.5)
    n_looks = 0

    def is_still() -> bool:
        nonlocal n_looks
        n_looks += 1
        return False

    with anyio.fail_after(30):
        async with booted() as kernel, AsyncExitStack() as calls:
            above, _ = kernel.admit("above")
            below = [kernel.admit("below", parent=above)[0] for _ in range(3)]
            for process in (above, *below):
                run = process.begin("tool_run", max_calls=1)
                calls.callback(process.end, run)
                calls.enter_context(run.holding(lambda _: None, is_still))
            began_s = time.monotonic()
            await kernel.gate(INIT_PID).call(Stop(pid=above.pid))
            took_s = time.monotonic() - began_s
    assert 0.5 <= took_s < 1.5
    assert 4 <= n_looks <= 4 * 12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "end"]), st.integers(0, 30)), max_size=60))
def test_the_tree_holds_together_whatever_is_born_and_dies(steps: list[tuple[str, int]]) -> None:
    table = table_of(max_exited=5)
    for step, number in steps:
        alive = [process for process in table if process.is_alive]
        chosen = alive[number % len(alive)]
        if step == "add":
            add(table, f"p{number % 3}", chosen)
        elif chosen.pid != 1:
            table.end(chosen, Exit(0))
        table.check_invariants()
    init = table.get(next(iter(table)).pid)
    assert {p.pid for p in table.tree(init)} == {p.pid for p in table if p.is_alive}
    assert all(table.is_within(process, init) for process in table)


@pytest.mark.anyio
async def test_stop_returns_once_nothing_that_was_started_runs(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            guest, _ = kernel.admit("guest")
            looks = [False, False, True]
            guest.stills.append(lambda: looks.pop(0))
            await kernel.gate(INIT_PID).call(Stop(pid=guest.pid))
            assert not looks


@pytest.mark.anyio
async def test_the_end_of_one_of_two_calls_of_a_server_leaves_it_to_be_looked_at() -> None:
    table = table_of()
    process = add(table, "a", next(iter(table)))
    server = anyio.Event()  # each call has a bound method of the same
    first, second = (process.begin("tool_run", max_calls=2) for _ in range(2))
    with first.holding(lambda _: None, server.is_set):
        with second.holding(lambda _: None, server.is_set):
            pass
        assert not all(is_still() for is_still in process.stills)
