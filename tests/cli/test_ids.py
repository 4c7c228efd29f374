"""From what a user types to a process."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.rows import ended, process

from aios.abi.types import Pid
from aios.cli.exits import ExitCode, Outcomes
from aios.cli.ids import as_pid, family, find_again, find_process, find_processes
from aios.errors import InvalidCall, NotFound

READERS = [process(2, "reader"), process(3, "reader-3"), process(4, "editor"), ended(5, "old")]


@pytest.mark.parametrize(
    ("reference", "pid"),
    [("2", 2), ("reader", 2), ("reader-3", 3), ("reader-", 3), ("e", 4), ("old", 5), ("o", 5)],
)
def test_a_pid_a_name_or_its_unique_beginning_finds_a_process(reference: str, pid: int) -> None:
    assert find_process(reference, READERS).pid == pid


def test_a_number_is_a_pid_if_it_can_be_one() -> None:
    assert (as_pid("17"), as_pid("9" * 18)) == (17, 10**18 - 1)
    for name in ("9" * 19, "reader", "\u00b2", "-1", "1.5", ""):
        assert as_pid(name) is None


def test_an_ambiguous_beginning_lists_the_candidates() -> None:
    with pytest.raises(
        InvalidCall, match=r"'read' is ambiguous: reader \(2\), reader-3 \(3\)"
    ) as caught:
        find_process("read", READERS)
    assert caught.value.hint


def test_many_candidates_are_cut_short() -> None:
    many = [process(pid, f"copy-{pid}") for pid in range(2, 40)]
    with pytest.raises(InvalidCall, match="and 28 more"):
        find_process("copy", many)


@pytest.mark.parametrize("reference", ["nobody", "", "99", "eader"])
def test_what_means_nothing_is_not_found(reference: str) -> None:
    with pytest.raises(NotFound):
        find_process(reference, READERS)


def test_a_pid_comes_before_a_name_of_digits() -> None:
    processes = [process(7, "8"), process(8, "other")]
    assert find_process("8", processes).pid == 8
    assert find_process("9", [process(7, "9")]).pid == 7


def test_a_living_process_comes_before_ended_ones_of_its_name_and_the_youngest_of_those_first() -> (
    None
):
    assert find_process("x", [ended(2, "x"), process(3, "x"), ended(4, "x")]).pid == 3
    assert find_process("x", [ended(2, "x"), ended(4, "x")]).pid == 4


def test_a_beginning_that_one_living_process_has_ignores_ended_ones() -> None:
    assert find_process("read", [ended(2, "reader-2"), process(3, "reader-3")]).pid == 3
    assert find_process("read", [ended(2, "reader"), ended(4, "reader")]).pid == 4


def test_references_that_mean_nothing_are_told_and_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes = Outcomes(as_json=False)
    found = find_processes(["reader", "nobody", "4"], READERS, outcomes)
    assert [one.pid for one in found] == [2, 4]
    assert outcomes.code == ExitCode.NOT_FOUND
    assert "no process 'nobody'" in capsys.readouterr().err


@given(
    st.lists(st.text("ab-", min_size=1, max_size=4), min_size=1, max_size=6, unique=True), st.data()
)
def test_every_process_is_found_by_its_whole_name_and_by_its_pid(
    names: list[str], data: st.DataObject
) -> None:
    processes = [process(pid, name) for pid, name in enumerate(names, 2)]
    wanted = data.draw(st.sampled_from(processes))
    assert find_process(wanted.name, processes) is wanted
    assert find_process(str(wanted.pid), processes) is wanted


def test_a_family_keeps_those_whose_parent_has_ended() -> None:
    pids = {Pid(2)}
    child = process(3, ppid=Pid(2))
    assert family([process(2), child, process(4)], pids) == [process(2), child]
    orphan = msgspec.structs.replace(child, ppid=Pid(1))
    grandchild = process(5, ppid=Pid(3))
    assert family([ended(2), orphan, process(4), grandchild], pids) == [
        ended(2),
        orphan,
        grandchild,
    ]


def test_a_process_of_a_kernel_before_is_found_by_when_it_began() -> None:
    again = process(2, "reader", nice=3)
    assert find_again(READERS[0], [process(4, "editor"), again]) is again
    for others in ([], [process(2, "reader", started_unix_s=2000.0)], [process(3, "reader")]):
        with pytest.raises(NotFound, match=r"knows nothing of process 2 \(reader\)"):
            find_again(READERS[0], others)
