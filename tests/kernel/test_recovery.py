from dataclasses import replace

import msgspec
import pytest

from aios.abi.recovery import Restart, RestartPolicy
from aios.abi.types import Exit, Kind, Pid
from aios.kernel.journal.records import Effect, Outcome, Record, Where
from aios.kernel.recovery import (
    Fate,
    Life,
    Next,
    Settling,
    failed_of,
    fate_of,
    next_life,
    policy_below,
    settled,
)

FAILING = Restart(policy="on-failure", max_restarts=3, delay_s=1.0)
ALWAYS = Restart(policy="always")


def record(effect: Effect, where: Where) -> Record:
    return Record(Pid(2), 7, "tool_run", b"", effect, 0.0, where)


@pytest.mark.parametrize("where", [Where.KERNEL, Where.DISK])
@pytest.mark.parametrize("effect", list(Effect))
def test_what_was_only_here_has_not_happened(effect: Effect, where: Where) -> None:
    assert settled(record(effect, where)) is Settling.AGAIN


def test_in_the_world_only_what_has_no_effect_is_done_again() -> None:
    found = {effect: settled(record(effect, Where.WORLD)) for effect in Effect}
    assert found == {
        Effect.PURE: Settling.AGAIN,
        Effect.REVERSIBLE: Settling.UNKNOWN,
        Effect.COMPENSABLE: Settling.UNKNOWN,
        Effect.IRREVERSIBLE: Settling.ASK,
    }


@pytest.mark.parametrize("effect", list(Effect))
def test_what_its_tool_knows_how_to_cure_waits_for_its_program_and_for_nobody_else(
    effect: Effect,
) -> None:
    for cure in ("again", "undo shop/cancel"):
        found = replace(record(effect, Where.WORLD), cure=cure)
        assert settled(found) is Settling.CURE
        assert (
            fate_of(
                Kind.PROGRAM, FAILING, [found], is_code_changed=False, is_parent_back=False
            ).fate
            is Fate.START
        )
    undoing = replace(record(effect, Where.WORLD), within=3)
    assert settled(undoing) is Settling.AGAIN, "an undo that was cut off is made with its call"


@pytest.mark.parametrize("effect", list(Effect))
def test_what_a_served_function_asked_is_made_by_nobody_again_and_asked_about_by_nobody(
    effect: Effect,
) -> None:
    found = replace(record(effect, Where.WORLD), job=7, cure="undo shop/cancel")
    is_pure = effect is Effect.PURE
    assert settled(found) is (Settling.AGAIN if is_pure else Settling.UNKNOWN)
    found = replace(found, where=Where.DISK)
    assert settled(found) is Settling.AGAIN


def test_a_program_is_started_again_only_if_it_says_so() -> None:
    def fate(kind: Kind, restart: Restart) -> Fate:
        return fate_of(kind, restart, [], is_code_changed=False, is_parent_back=False).fate

    assert fate(Kind.PROGRAM, Restart()) is Fate.END
    assert fate(Kind.PROGRAM, FAILING) is Fate.START
    assert fate(Kind.TASK, ALWAYS) is Fate.END
    assert fate(Kind.GUEST, Restart()) is Fate.STAY


@pytest.mark.parametrize("policy", ["with-parent", "never", "on-failure"])
def test_a_program_that_says_nothing_comes_back_with_its_parent(policy: RestartPolicy) -> None:
    found = [
        fate_of(
            Kind.PROGRAM, Restart(policy), [], is_code_changed=False, is_parent_back=is_back
        ).fate
        for is_back in (True, False)
    ]
    assert (
        found
        == {
            "with-parent": [Fate.START, Fate.END],
            "never": [Fate.END, Fate.END],
            "on-failure": [Fate.START, Fate.START],
        }[policy]
    )
    below = {parent: policy_below(Restart(policy), parent) for parent in (None, FAILING)}
    assert below[FAILING] == Restart(policy)
    assert below[None] == Restart("never" if policy == "with-parent" else policy)
    assert policy_below(Restart(), Restart()) == Restart(), "a child of a child"


def test_one_that_goes_with_its_parent_is_not_started_again_when_it_crashes() -> None:
    assert next_life(Restart(), life(1)) is None
    assert next_life(Restart(), life(0)) is None
    diverged = msgspec.structs.replace(life(1), wants_fresh=True)
    assert next_life(Restart(), diverged) == Next(1.0, 1, False)


def test_the_owner_is_asked_about_what_cannot_be_undone_and_about_other_code() -> None:
    irreversible = [record(Effect.IRREVERSIBLE, Where.WORLD)]
    asked = fate_of(
        Kind.PROGRAM, FAILING, irreversible, is_code_changed=False, is_parent_back=False
    )
    assert (asked.fate, asked.choices) == (Fate.ASK, ("again", "done", "fresh", "end"))
    assert "tool_run (call 7)" in asked.why
    changed = fate_of(Kind.PROGRAM, FAILING, [], is_code_changed=True, is_parent_back=False)
    assert (changed.fate, changed.choices) == (Fate.ASK, ("replay", "fresh", "end"))


def life(status: int, *, n_crashes: int = 0, ran_s: float = 1.0, on_purpose: bool = False) -> Life:
    return Life(Exit(status), ran_s, n_crashes, is_ended_on_purpose=on_purpose)


def test_crashes_in_a_row_wait_twice_as_long_and_are_given_up() -> None:
    found = [next_life(FAILING, life(1, n_crashes=n)) for n in range(4)]
    assert found == [Next(1.0, 1, True), Next(2.0, 2, True), Next(4.0, 3, True), None]
    steady = next_life(FAILING, life(1, n_crashes=3, ran_s=1000.0))
    assert steady == Next(1.0, 1, True)


def test_who_is_done_or_was_killed_is_not_started_again() -> None:
    assert next_life(FAILING, life(0)) is None
    assert next_life(FAILING, life(1, on_purpose=True)) is None
    assert next_life(ALWAYS, life(0)) == Next(1.0, 0, False)
    assert next_life(ALWAYS, life(1, on_purpose=True)) == Next(1.0, 0, False)
    killed = Life(Exit(137), 1.0, 0, is_ended_on_purpose=True, is_killed=True)
    assert next_life(ALWAYS, killed) is None
    assert next_life(Restart(), life(1)) is None


def test_who_diverged_begins_anew() -> None:
    diverged = Life(Exit(137), 1.0, 0, is_ended_on_purpose=False, wants_fresh=True)
    assert next_life(FAILING, diverged) == Next(1.0, 1, False)


def told(seq: int, call: str, code: str = "", *, begun: float, ended: float) -> Record:
    outcome = Outcome.FAULT if code else Outcome.DONE
    return Record(
        Pid(2), seq, call, b"", Effect.PURE, begun, outcome=outcome, code=code, ended_unix_s=ended
    )


DOWN = "engine_unavailable"


def failed(*records: Record) -> list[int]:
    return sorted(each.seq for each in failed_of(records))


def test_the_call_by_which_a_program_crashed_is_made_again_with_what_it_asked_on_its_way_out() -> (
    None
):
    earlier = told(1, "chat", DOWN, begun=1, ended=2)
    opened = told(2, "context_open", begun=3, ended=3)
    down = told(3, "chat", DOWN, begun=4, ended=5)
    closed = told(4, "context_close", begun=6, ended=6)
    assert failed(earlier, opened, down, closed) == [3, 4]
    assert failed(earlier, down, closed) == [3, 4], "the earlier one was heard, and asked again"
    assert failed(opened, closed) == []
    assert failed(down, told(4, "file_edit", begun=6, ended=6)) == []
    assert failed(opened, told(3, "chat", "access_denied", begun=4, ended=5), closed) == []


def test_calls_that_failed_beside_the_last_one_are_made_again_too() -> None:
    beside = [told(seq, "chat", DOWN, begun=1, ended=seq) for seq in (2, 3, 4)]
    cut_off = replace(beside[0], seq=5, outcome=Outcome.CANCELLED, code="")
    assert failed(*beside, cut_off) == [2, 3, 4]


def test_a_program_that_went_on_from_an_error_did_not_crash_by_it() -> None:
    """Found by a simulation: what it went on to was cut off by its crash, and it diverged."""
    down = told(1, "chat", DOWN, begun=1, ended=2)
    cut_off = replace(told(2, "remember", begun=2, ended=3), outcome=Outcome.CANCELLED)
    assert failed(down, cut_off) == []
    beside = told(3, "chat", DOWN, begun=1.5, ended=4)
    assert failed(down, cut_off, beside) == [3]


def test_what_other_tasks_are_told_meanwhile_hides_no_error() -> None:
    down = told(2, "chat", DOWN, begun=4, ended=5)
    assert failed(told(1, "receive", begun=1, ended=6), down) == [2]
    assert failed(told(1, "receive", begun=5, ended=6), replace(down, seq=1)) == []
    taken = [told(3, "tool_take", begun=5.5, ended=6), told(4, "tool_take", begun=6, ended=7)]
    cut_off = replace(taken[1], seq=5, outcome=Outcome.CANCELLED)
    assert failed(down, *taken, cut_off) == [2], "its functions are called until it is gone"
    assert failed(down, told(3, "tool_take", "disk_failed", begun=6, ended=7)) == [3]


def test_a_failed_call_that_may_have_done_something_is_told_again() -> None:
    for effect in (Effect.REVERSIBLE, Effect.IRREVERSIBLE):
        tool = replace(told(1, "tool_run", "tool_failed", begun=1, ended=2), effect=effect)
        assert failed(tool) == []
        assert failed(replace(tool, where=Where.DISK)) == [1]


def test_what_functions_and_tools_of_the_kernel_asked_is_not_what_a_program_crashed_by() -> None:
    down = told(1, "chat", DOWN, begun=1, ended=2)
    assert failed(replace(down, job=9)) == failed(replace(down, within=3)) == []
