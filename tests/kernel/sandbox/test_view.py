from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import AccessDenied, InvalidCall
from aios.kernel.sandbox.view import Asked, View, view_of

PROGRAM, WORK, OTHER = Path("/opt/program"), Path("/data/work"), Path("/data/other")


def test_the_owners_program_reads_its_folder_and_changes_its_workspace() -> None:
    view = view_of(None, None, program=PROGRAM, cwd=WORK)
    assert view.may_read(PROGRAM / "main.py")
    assert not view.may_write(PROGRAM / "main.py")
    assert view.may_write(WORK / "deep" / "file")
    assert not view.may_read(OTHER)
    assert not view.may_read(Path("/data/workshop")), "a name that only begins alike"


def test_more_is_seen_when_it_is_asked_for() -> None:
    view = view_of(None, Asked(read=(OTHER,)), program=PROGRAM, cwd=WORK)
    assert view.may_read(OTHER / "a")
    assert not view.may_write(OTHER / "a")


def test_a_child_that_asks_for_nothing_sees_what_its_parent_sees() -> None:
    parent = view_of(None, Asked(read=(OTHER,)), program=PROGRAM, cwd=WORK)
    child = view_of(parent, None, program=PROGRAM / "reader", cwd=WORK)
    assert child.may_read(OTHER)
    assert child.may_write(WORK)


def test_a_child_can_be_given_less() -> None:
    parent = view_of(None, Asked(read=(OTHER,)), program=PROGRAM, cwd=WORK)
    child = view_of(parent, Asked(), program=PROGRAM, cwd=WORK / "part")
    assert not child.may_read(OTHER)
    assert not child.may_read(WORK / "rest")
    assert child.may_write(WORK / "part")


def test_a_workspace_that_the_parent_may_only_read_is_not_writable_for_its_child() -> None:
    parent = view_of(None, Asked(read=(OTHER,)), program=PROGRAM, cwd=WORK)
    child = view_of(parent, Asked(), program=PROGRAM, cwd=OTHER)
    assert child.may_read(OTHER)
    assert not child.may_write(OTHER)


@pytest.mark.parametrize(
    "asked", [Asked(read=(OTHER,)), Asked(write=(OTHER,)), Asked(write=(PROGRAM,))]
)
def test_no_child_gets_what_its_parent_lacks(asked: Asked) -> None:
    parent = view_of(None, None, program=PROGRAM, cwd=WORK)
    with pytest.raises(AccessDenied, match="may not"):
        view_of(parent, asked, program=PROGRAM, cwd=WORK)


def test_neither_workspace_nor_program_can_lie_outside_the_parents_view() -> None:
    parent = view_of(None, None, program=PROGRAM, cwd=WORK)
    with pytest.raises(AccessDenied):
        view_of(parent, None, program=PROGRAM, cwd=OTHER)
    with pytest.raises(AccessDenied):
        view_of(parent, None, program=OTHER, cwd=WORK)


def test_nobody_is_given_the_whole_machine() -> None:
    for asked in (Asked(read=(Path("/"),)), Asked(write=(Path("/"),))):
        with pytest.raises(InvalidCall, match="whole machine"):
            view_of(None, asked, program=PROGRAM, cwd=WORK)
    with pytest.raises(InvalidCall):
        view_of(None, None, program=PROGRAM, cwd=Path("/"))


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda p: Path("/", *p))
ASKED = st.builds(
    Asked, st.lists(PATHS, max_size=2).map(tuple), st.lists(PATHS, max_size=2).map(tuple)
)


@given(parent=ASKED, program=PATHS, cwd=PATHS, asked=st.none() | ASKED, probe=PATHS)
def test_whatever_is_asked_a_child_never_sees_more(
    parent: Asked, program: Path, cwd: Path, asked: Asked | None, probe: Path
) -> None:
    own = View(cwd, (program, *parent.read), (cwd, *parent.write))
    try:
        child = view_of(own, asked, program=program, cwd=cwd)
    except AccessDenied:
        return
    assert own.may_read(probe) or not child.may_read(probe)
    assert own.may_write(probe) or not child.may_write(probe)
