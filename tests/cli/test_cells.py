import msgspec

from aios.abi.types import Kind, PagesHeld, Pid, ProcessInfo, State, Usage
from aios.cli.cells import attained_tokens, count_or_dash, described_place, shared_part

BOB = ProcessInfo(
    pid=Pid(2),
    ppid=Pid(1),
    name="bob",
    program="",
    owner="bob",
    kind=Kind.GUEST,
    state=State.READY,
    nice=0,
    activity="chat",
    started_unix_s=0.0,
    ended_unix_s=None,
    exit=None,
    n_calls=1,
    n_faults=0,
    n_preemptions=0,
    waited_s=0.0,
    ran_s=0.0,
    usage=Usage(100, 60, 7),
)


def test_what_a_process_attained_is_what_was_computed_for_it() -> None:
    assert attained_tokens(BOB) == 47


def test_a_place_is_a_turn_a_number_or_none() -> None:
    places = [msgspec.structs.replace(BOB, place=place) for place in (None, 0, 1, 1200)]
    assert [described_place(each) for each in places] == ["-", "turn", "1", "1.2k"]


def test_the_shared_part_is_of_all_pages() -> None:
    assert shared_part(BOB) == "-"
    assert shared_part(msgspec.structs.replace(BOB, pages=PagesHeld(0, 0, 0, 0))) == "-"
    assert shared_part(msgspec.structs.replace(BOB, pages=PagesHeld(8, 4, 2, 6))) == "75%"


def test_nothing_is_a_dash_and_zero_is_zero() -> None:
    assert [count_or_dash(n) for n in (None, 0, 5)] == ["-", "0", "5"]
