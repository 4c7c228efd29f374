from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.approvals import ACT_CHOICES, Approval, ApprovalState
from aios.abi.types import Pid
from aios.errors import AiosError, Conflict, InvalidCall, ResourceExhausted
from aios.kernel.approvals import book
from aios.kernel.approvals.book import Book

OPEN = ApprovalState.OPEN


def question(
    pid: int = 7, digest: str = "d", *, number: int = 1, code: str = "c", expires_unix_s: float = 9
) -> Approval:
    return Approval(
        id=number, pid=Pid(pid), name="ann", program="/p", code=code, action="tool.run",
        resource="Tool base/launch", effect="irreversible", is_tainted=False, digest=digest, why="", arguments="",
        choices=ACT_CHOICES if code else ("once", "process", "deny"), asked_unix_s=0.0, expires_unix_s=expires_unix_s,
    )  # fmt: skip


def new_book(max_open: int = 3, max_open_in_all: int = 5, max_kept: int = 4) -> Book:
    return Book(max_open, max_open_in_all, max_kept)


def test_an_answer_holds_for_its_process_its_act_and_its_arguments_alone() -> None:
    found = new_book()
    asked = question()
    found.add(asked)
    found.put(book.answered(asked, "process", by="owner", unix_s=1.0))
    assert found.find(asked) is not None
    for other in (
        question(8),
        question(digest="e"),
        msgspec.structs.replace(asked, resource="Tool base/land"),
        msgspec.structs.replace(asked, is_tainted=True),
        msgspec.structs.replace(asked, effect="pure"),
        msgspec.structs.replace(asked, action="file.write"),
    ):
        assert found.find(other) is None, other


def test_of_long_questions_that_are_over_the_newest_are_shown_and_all_that_are_open_or_hold() -> (
    None
):
    found = new_book(10, 10, 10)
    rows = [
        msgspec.structs.replace(question(digest=f"{n}", number=n), arguments="a" * (1 << 20))
        for n in range(1, 9)
    ]
    for row in rows:
        found.add(row)
    found.put(book.answered(rows[0], "process", by="owner", unix_s=1.0))
    for row in rows[1:7]:
        found.put(book.over(row, ApprovalState.WITHDRAWN))
    assert [each.id for each in found.shown(is_all=True)] == [1, 5, 6, 7, 8]
    assert [each.id for each in found.shown(is_all=False)] == [8]
    assert len(found.listed(is_all=True)) == 8


def test_always_is_for_all_processes_of_a_program_until_its_code_changes() -> None:
    found = new_book()
    asked = question()
    found.add(asked)
    always = found.put(book.answered(asked, "always", by="owner", unix_s=1.0))
    assert found.find(question(99)) == always
    assert found.find(question(99, code="changed")) is None
    assert found.find(question(99, digest="e")) is None
    assert found.put(book.ended(always)).holds, "it outlives the process that asked"
    with pytest.raises(InvalidCall, match="'always' is no answer"):
        book.answered(question(code=""), "always", by="owner", unix_s=1.0)


def test_what_two_were_always_allowed_is_one_answer_that_is_taken_back_once() -> None:
    found = new_book()
    asked = [question(7), question(8, number=2)]
    for each in asked:
        assert found.next_id() == each.id
        found.add(each)
    for each in asked:
        found.put(book.answered(each, "always", by="owner", unix_s=1.0))
        found.check_invariants()
    assert [row.id for row in found.replaced] == [1], "to be written down"
    assert not found.get(1).holds
    found.put(book.over(found.get(2), ApprovalState.REVOKED))
    assert found.find(question(9)) is None
    later = new_book()
    later.load([found.get(1), found.get(2)], 2)
    assert later.find(question(9)) is None, "nor under the next kernel"


def test_a_no_of_a_process_comes_before_a_yes_of_its_program() -> None:
    found = new_book()
    denied = question(7, number=1)
    found.add(denied)
    found.put(book.answered(denied, "deny", by="owner", unix_s=1.0))
    asked = question(8, number=2)
    found.add(asked)
    found.put(book.answered(asked, "always", by="owner", unix_s=1.0))
    again = found.find(question(7))
    assert again is not None
    assert again.state is ApprovalState.DENIED


def test_too_late_is_no_answer_and_so_is_a_second() -> None:
    with pytest.raises(Conflict, match="has expired"):
        book.answered(question(), "once", by="owner", unix_s=9.0)
    once = book.answered(question(), "once", by="owner", unix_s=8.0)
    with pytest.raises(Conflict, match="is allowed already") as told:
        book.answered(once, "deny", by="owner", unix_s=8.5)
    assert "revoke 1" in told.value.hint
    gone = book.over(question(), ApprovalState.EXPIRED)
    with pytest.raises(Conflict, match="is expired already") as told:
        book.answered(gone, "once", by="owner", unix_s=8.5)
    assert "revoke" not in told.value.hint, "there is no answer that could be taken back"


def test_open_questions_are_bounded_for_each_and_for_all() -> None:
    found = new_book()
    for n in range(3):
        found.add(question(7, str(n), number=n + 1))
    with pytest.raises(ResourceExhausted, match="process 7 has 3 questions open"):
        found.add(question(7, "more", number=9))
    found.add(question(8, number=4))
    found.add(question(9, number=5))
    with pytest.raises(ResourceExhausted, match="5 questions are open"):
        found.add(question(10, number=6))


@dataclass
class Model:
    """What was answered, told without a book: which calls may be, by process and arguments."""

    once: set[tuple[int, str]]
    process: set[tuple[int, str]]
    always: set[str]
    denied: set[tuple[int, str]]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "once", "process", "always", "deny", "expire", "end", "revoke"]),
        st.integers(1, 3),
        st.sampled_from(["x", "y"]),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(STEPS)
def test_nothing_is_let_through_that_was_not_answered_so(
    steps: list[tuple[str, int, str]],
) -> None:
    found = new_book(max_open=2, max_open_in_all=4)
    model = Model(set(), set(), set(), set())
    for what, pid, digest in steps:
        _step(found, model, what, question(pid, digest))
        found.check_invariants()


def _step(found: Book, model: Model, what: str, asked: Approval) -> None:
    pid, digest = asked.pid, asked.digest
    act, standing = (pid, digest), found.find(asked)
    if what == "end":
        for row in found.of_process(pid):
            found.put(book.ended(row))
        for kept in (model.once, model.process, model.denied):
            kept -= {each for each in kept if each[0] == pid}
    elif what == "ask" and standing is None:
        assert act not in model.once | model.process | model.denied
        assert digest not in model.always
        try:
            found.add(msgspec.structs.replace(asked, id=found.next_id()))
        except ResourceExhausted:
            return
    elif standing is None:
        return
    elif what == "ask":
        _take(found, model, standing, act)
    elif standing.state is OPEN and what in ACT_CHOICES:
        found.put(book.answered(standing, what, by="owner", unix_s=1.0))
        if what == "always":
            _replaced(found, model, digest)
        else:
            {"once": model.once, "process": model.process, "deny": model.denied}[what].add(act)
    elif what == "expire" and standing.state is OPEN:
        found.put(book.over(standing, ApprovalState.EXPIRED))
    elif what == "revoke" and standing.state is not OPEN:
        found.put(book.over(standing, ApprovalState.REVOKED))
        for kept in (model.once, model.process, model.denied):
            kept.discard(act) if standing.said != "always" else None
        if standing.said == "always":
            model.always.discard(digest)


def _replaced(found: Book, model: Model, digest: str) -> None:
    del found
    model.always.add(digest)


def _take(found: Book, model: Model, standing: Approval, act: tuple[int, str]) -> None:
    """A call of that process asks: what it finds is what was answered to exactly this."""
    if standing.state is OPEN:
        return
    if standing.state is ApprovalState.DENIED:
        assert act in model.denied
        return
    assert standing.state is ApprovalState.ALLOWED
    kept = {"once": act in model.once, "process": act in model.process}
    assert kept.get(standing.said, act[1] in model.always), standing
    after = book.taken(standing)
    if after is not standing:
        found.put(after)
        model.once.discard(act)
    with pytest.raises(AiosError):
        book.answered(after, "once", by="owner", unix_s=1.0)
