from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.storage.undo_plan import Plan, Version, plan, undone


def history(*versions: tuple[bool, int | None]) -> dict[int, Version]:
    return {
        number: Version(number, is_mine, "me" if is_mine else "bob", back_to)
        for number, (is_mine, back_to) in enumerate(versions, 1)
    }


MINE, THEIRS = (True, None), (False, None)


def test_what_is_mine_on_top_is_taken_back_to_what_was_below() -> None:
    assert plan(history(THEIRS, MINE, MINE), 3) == Plan(1)
    assert plan(history(MINE), 1) == Plan(0)


def test_what_lies_below_anothers_version_stays_and_is_told() -> None:
    assert plan(history(MINE, THEIRS), 2) == Plan(None, (1,), "bob")
    assert plan(history(THEIRS, MINE, THEIRS, MINE), 4) == Plan(3, (2,), "bob")


def test_what_was_undone_is_not_undone_again() -> None:
    assert plan(history(THEIRS, MINE, (False, 1)), 3) == Plan(None)
    assert plan(history(MINE, (False, 0)), 2) == Plan(None)


def test_an_undo_of_mine_is_undone_by_going_back_before_it() -> None:
    assert plan(history(THEIRS, THEIRS, (True, 1)), 3) == Plan(2)


def test_what_an_undone_undo_brought_back_can_be_undone_once_more() -> None:
    assert plan(history(THEIRS, MINE, (False, 1), (False, 2)), 4) == Plan(1)


def test_what_was_as_it_should_be_when_it_was_undone_is_not_brought_back_later() -> None:
    gone = Version(2, is_mine=True, author="me", back_to=0, is_undone=True)
    versions = {**history(MINE), 2: gone}
    assert undone(versions, 2) == {1, 2}
    assert plan(versions, 2) == Plan(None)
    later = {**versions, 3: Version(3, is_mine=True, author="me")}
    assert plan(later, 3) == Plan(0)
    theirs = {**versions, 3: Version(3, is_mine=False, author="bob")}
    assert plan(theirs, 3) == Plan(None), "what is undone is not told as lying below another's"


def test_an_undo_of_mine_is_taken_back_with_what_it_took_back() -> None:
    assert plan(history(MINE, (True, 0)), 2) == Plan(0)
    assert plan(history(THEIRS, MINE, (True, 1)), 3) == Plan(1)
    assert plan(history(MINE, (True, 0), THEIRS), 3) == Plan(None, (2, 1), "bob")


def test_below_a_purged_version_nothing_is_known() -> None:
    assert plan({3: Version(3, is_mine=True, author="me")}, 3) == Plan(2)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_nothing_of_others_is_ever_lost(owners: list[bool]) -> None:
    versions = history(*((is_mine, None) for is_mine in owners))
    found = plan(versions, len(owners))
    kept = len(owners) if found.target is None else found.target
    assert all(owners[kept:]), "a version of another was taken back"
    assert not kept or not owners[kept - 1] or found.target is None


def test_what_an_undo_went_back_behind_is_undone_until_that_undo_is_undone() -> None:
    assert undone(history(MINE, MINE), 2) == frozenset()
    assert undone(history(MINE, MINE, (False, 1)), 3) == {2}
    assert undone(history(MINE, MINE, (False, 1), (False, 2)), 4) == {3}
    assert undone(history(MINE, (False, 0), MINE, MINE, (False, 2)), 5) == {1, 3, 4}
    purged = {4: Version(4, is_mine=False, author="bob", back_to=1)}
    assert undone(purged, 4) == {2, 3}, "also where they are purged"
    assert undone({}, 0) == frozenset()
