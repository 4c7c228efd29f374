import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Message, Role, ToolCall
from aios.errors import Conflict, NotFound
from aios.kernel.context.contexts import cut_of
from aios.kernel.context.transcript import (
    Items,
    Rewrite,
    Transcript,
    check_invariants,
    extended,
    tail_of,
)
from aios.kernel.context.window import (
    Span,
    cut_again,
    cut_out,
    estimated_tokens,
    faulted_in,
    page,
    pointer_note,
    removable,
    rewritten,
    shown,
    slimmed,
    summary_note,
    undone,
    within,
    without,
)

SYSTEM = Message(Role.SYSTEM, "be brief")


def user(text: str) -> Message:
    return Message(Role.USER, text)


def answer(text: str) -> Message:
    return Message(Role.ASSISTANT, text)


def tool_round(call_id: str, n_calls: int = 1) -> list[Message]:
    ids = [f"{call_id}{i}" for i in range(n_calls)]
    calls = Message(Role.ASSISTANT, tool_calls=tuple(ToolCall(each, "f", "{}") for each in ids))
    return [calls, *(Message(Role.TOOL, "r", tool_call_id=each) for each in ids)]


def built(*messages: Message) -> Items:
    return extended((), messages)


def texts(items: Items) -> list[str]:
    return [item.message.text() or "calls" for item in items]


def test_old_turns_leave_whole_and_the_system_message_stays() -> None:
    items = built(
        SYSTEM, user("1"), *tool_round("a", 2), answer("A"), user("2"), answer("B"), user("3")
    )
    spans = removable(items)
    assert texts(without(items, spans[:1])) == ["be brief", "2", "B", "3"]
    assert texts(without(items, spans)) == ["be brief", "3"]


def test_the_last_turn_keeps_its_question_and_its_last_round() -> None:
    items = built(user("task"), *tool_round("a"), *tool_round("b"), *tool_round("c"))
    kept = without(items, removable(items))
    assert texts(kept) == ["task", "calls", "r"]
    assert kept[1].message.tool_calls[0].id == "c0"


@pytest.mark.parametrize("n_pinned", [1, 3])
def test_questions_behind_what_is_pinned_leave_with_their_answers(n_pinned: int) -> None:
    items = extended((), [user("rule")] * n_pinned, is_pinned=True)
    for n in range(40):
        items = extended(items, [user(f"q{n}"), answer(f"a{n}")])
        if len(items) > 8:
            items = without(items, removable(items)[:2], pointer_note(n, ()))
        assert len(items) < 12
    asked, answered = ([text for text in texts(items) if text[0] == kind] for kind in "qa")
    assert [text[1:] for text in asked] == [text[1:] for text in answered]


@pytest.mark.parametrize("messages", [(), (SYSTEM,), (SYSTEM, user("1"))])
def test_from_a_conversation_that_has_not_begun_nothing_leaves(
    messages: tuple[Message, ...],
) -> None:
    assert removable(built(*messages)) == []


def test_what_is_pinned_stays_with_its_question() -> None:
    items = built(user("1"), *tool_round("a"), answer("A"))
    items = extended(items, [user("rule")], is_pinned=True)
    items = extended(items, [answer("ok"), user("2")])
    assert texts(without(items, removable(items))) == ["rule", "2"]


def test_a_note_stands_where_the_first_left_and_joins_the_question_after_it() -> None:
    items = built(SYSTEM, user("1"), answer("A"), user("2"))
    spans = removable(items)
    kept = without(items, spans, summary_note("a talk"))
    assert [item.is_note for item in kept] == [False, True, False]
    check_invariants(kept)
    prompt = shown(kept)
    assert [m.role for m in prompt] == [Role.SYSTEM, Role.USER]
    assert "a talk" in prompt[1].text()
    assert prompt[1].text().endswith("\n\n2")
    # Compacted again, the note leaves with the turn that it stands before.
    more = extended(kept, [answer("B"), user("3")])
    assert texts(without(more, removable(more))) == ["be brief", "3"]


def test_a_note_between_rounds_does_not_make_the_question_an_old_turn() -> None:
    items = built(user("task"), *tool_round("a"), *tool_round("b"))
    kept = without(items, removable(items), pointer_note(1, items[1:3]))
    for call_id in ("c", "d"):
        kept = extended(kept, tool_round(call_id))
        kept = without(kept, removable(kept)[:2], pointer_note(2, kept[1:3]))
    check_invariants(kept)
    assert kept[0].message.text() == "task"
    assert sum(item.is_note for item in kept) == 1, "old notes leave, too"


def test_a_page_comes_back_in_the_place_of_its_note() -> None:
    items = built(SYSTEM, user("1"), answer("A"), user("2"), answer("B"), user("3"))
    spans = removable(items)[:1]
    leaving = within(items, spans)
    before = Transcript(items)
    after = rewritten(
        before, without(items, spans, pointer_note(1, leaving)), Rewrite("page-to-memory", 2)
    )
    paged = Transcript(after.items, after.rewrites, (leaving,))
    assert page(paged, 1) == leaving
    assert faulted_in(paged, 1, unix_s=1.0).items == items
    with pytest.raises(NotFound, match="no pointer 2"):
        page(paged, 2)
    with pytest.raises(Conflict, match="not in the window"):
        faulted_in(faulted_in(paged, 1, unix_s=1.0), 1, unix_s=2.0)


def paged_out(transcript: Transcript, spans: list[Span], pointer: int) -> Transcript:
    leaving = within(transcript.items, spans)
    after = without(transcript.items, spans, pointer_note(pointer, leaving))
    done = rewritten(transcript, after, Rewrite("page-to-memory", len(leaving)))
    return Transcript(done.items, done.rewrites, (*done.pages, leaving))


def test_a_page_comes_back_around_what_was_pinned_in_between() -> None:
    items = built(SYSTEM, user("1"), answer("A"))
    items = extended(items, [user("rule")], is_pinned=True)
    items = extended(items, [answer("yes"), user("2"), answer("B"), user("3"), answer("C")])
    paged = paged_out(Transcript(items), removable(items), 1)
    assert texts(paged.items)[2:] == ["rule", "3", "C"]
    later = paged.put(extended(paged.items, [user("4"), answer("D")]))
    back = faulted_in(later, 1, unix_s=1.0)
    assert texts(back.items) == [*texts(items), "4", "D"]
    assert undone(back) == later


def test_a_page_that_an_undone_fault_brought_the_note_of_is_still_there() -> None:
    items = built(user("1"), answer("A"), user("2"), answer("B"), user("3"), answer("C"), user("4"))
    first = paged_out(Transcript(items), removable(items)[:1], 1)
    both = paged_out(first, removable(first.items)[:1], 2)
    again = undone(faulted_in(both, 2, unix_s=1.0))
    assert again == both
    assert texts(page(again, 1)) == ["1", "A"]


def test_a_page_goes_when_what_cut_it_out_is_undone_and_not_before() -> None:
    items = built(SYSTEM, user("1"), answer("A"), user("2"), answer("B"), user("3"), answer("C"))
    spans = removable(items)
    leaving = within(items, spans[1:2])
    note = pointer_note(1, leaving)
    after = rewritten(
        Transcript(items), without(items, spans[1:2], note), Rewrite("page-to-memory", 2)
    )
    paged = Transcript(after.items, after.rewrites, (leaving,))
    # What stands on both sides of the note leaves, so the note is within what this rewrite put.
    kept = (paged.items[0], note, paged.items[-1])
    assert undone(rewritten(paged, kept, Rewrite("drop-oldest", 3))) == paged
    assert undone(faulted_in(paged, 1, unix_s=1.0)) == paged
    gone = undone(paged)
    assert gone == Transcript(items, (), ((),)), "the next one gets another number"
    with pytest.raises(NotFound, match="leads nowhere any more"):
        page(gone, 1)


def test_nothing_to_undo_is_said() -> None:
    with pytest.raises(Conflict, match="left to undo"):
        undone(Transcript(built(user("1"))))


def test_the_oldest_compactions_are_forgotten_first() -> None:
    transcript = Transcript(
        built(*[user(str(i)) if i % 2 == 0 else answer(str(i)) for i in range(9)])
    )
    whole = transcript.size_bytes
    for _ in range(4):
        spans = removable(transcript.items)[:1]
        after = without(transcript.items, spans)
        transcript = rewritten(transcript, after, Rewrite("drop-oldest", 2))
    assert transcript.size_bytes == whole
    slim = slimmed(transcript, whole - 1)
    assert len(slim.rewrites) == 3
    assert texts(undone(undone(undone(slim))).items)[0] == "2"
    assert slimmed(transcript, 0).rewrites == ()


def test_the_oldest_pages_go_when_nothing_is_left_to_undo() -> None:
    pages = tuple(built(user(str(n) * 100)) for n in range(3))
    items = built(user("now"))
    transcript = Transcript(items, (Rewrite("page-to-memory", 1, removed=pages[2]),), pages)
    whole = transcript.size_bytes
    assert slimmed(transcript, whole - 1).pages == pages, "what can be undone goes first"
    slim = slimmed(transcript, whole - pages[2][0].size_bytes - 1)
    assert (slim.items, slim.rewrites, slim.pages) == (items, (), ((), *pages[1:]))
    with pytest.raises(NotFound, match="pointer 1 leads nowhere any more"):
        page(slim, 1)
    assert page(slim, 2) == pages[1]
    assert slimmed(transcript, 0).pages == ((), (), ())


def test_an_estimate_grows_with_what_is_said() -> None:
    assert estimated_tokens([user("x" * 400)]) >= 100
    assert estimated_tokens([user("x")], 400) >= 100
    assert estimated_tokens(tool_round("a")) > estimated_tokens([user("")])


TURN = st.builds(
    lambda n_rounds, has_answer, n_users: (n_rounds, has_answer, n_users),
    st.lists(st.integers(1, 3), max_size=3), st.booleans(), st.integers(1, 2),
)  # fmt: skip


@st.composite
def transcripts(draw: st.DrawFn) -> Items:
    """Any valid conversation, with anything pinned, which may end in calls that wait."""
    items: Items = built(SYSTEM) if draw(st.booleans()) else ()
    for t, (rounds, has_answer, n_users) in enumerate(draw(st.lists(TURN, min_size=1, max_size=6))):
        items = extended(items, [user(f"q{t}")] * n_users, is_pinned=draw(st.integers(0, 4)) == 0)
        for r, n_calls in enumerate(rounds):
            items = extended(
                items, tool_round(f"{t}.{r}.", n_calls), is_pinned=draw(st.integers(0, 6)) == 0
            )
        if has_answer:
            items = extended(items, [answer(f"a{t}")])
    if items[-1].message.role is Role.TOOL and draw(st.booleans()):
        items = items[:-1]
    return items


@given(transcripts(), st.data())
def test_whatever_leaves_a_valid_transcript_stays_and_undo_is_exact(
    items: Items, data: st.DataObject
) -> None:
    transcript = Transcript(items)
    undo_to = []
    for _ in range(data.draw(st.integers(1, 4))):
        spans = removable(transcript.items)
        n_leaving = data.draw(st.integers(0, len(spans)))
        if n_leaving == 0:
            continue
        leaving = within(transcript.items, spans[:n_leaving])
        assert not any(item.is_pinned for item in leaving)
        assert not any(item.message.role is Role.SYSTEM for item in leaving)
        note = data.draw(
            st.sampled_from(
                [None, summary_note("s"), pointer_note(len(transcript.pages) + 1, leaving)]
            )
        )
        after = without(transcript.items, spans[:n_leaving], note)
        check_invariants(after)
        assert tail_of(after) == tail_of(transcript.items), "what may follow is not changed"
        undo_to.append(transcript.items)
        before = transcript
        transcript = cut_out(before, spans[:n_leaving], Rewrite("x", 0, note=note))
        assert transcript.items == after
        numbers = [item.number for item in transcript.items]
        assert numbers == sorted(set(numbers)), "each has its place"
        assert cut_again(before, cut_of(transcript.rewrites[-1])) == transcript
        assert cut_again(Transcript(), cut_of(transcript.rewrites[-1])) == Transcript()
        shown(transcript.items)
        if (
            not tail_of(transcript.items).waiting
            and transcript.items[-1].message.role is not Role.USER
        ):
            more = [user("more"), answer("indeed")]
            transcript = transcript.put(extended(transcript.items, more))
            undo_to = [(*each, *transcript.items[-2:]) for each in undo_to]
    for expected in reversed(undo_to):
        transcript = undone(transcript)
        assert transcript.items == expected
        check_invariants(transcript.items)


@given(transcripts(), st.data())
def test_whatever_was_paged_out_comes_back_where_it_was(items: Items, data: st.DataObject) -> None:
    transcript, said = Transcript(items), items
    for pointer in range(1, data.draw(st.integers(2, 5))):
        spans = removable(transcript.items)
        n_leaving = data.draw(st.integers(0, len(spans)))
        transcript = paged_out(transcript, spans[:n_leaving], pointer)
        if tail_of(said).waiting:
            continue
        more = [user("more"), *tool_round(f"p{pointer}.")]
        is_pinned = data.draw(st.booleans())
        transcript = transcript.put(extended(transcript.items, more, is_pinned=is_pinned))
        said = extended(said, more, is_pinned=is_pinned)
    while pointers := [item.pointer for item in transcript.items if item.pointer]:
        transcript = faulted_in(transcript, data.draw(st.sampled_from(pointers)), unix_s=1.0)
        check_invariants(transcript.items)
    assert transcript.items == said
