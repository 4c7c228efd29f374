import json

import pytest

from aios.errors import InvalidCall
from aios.sdk.fileplan import (
    Menu,
    PlannedStep,
    Source,
    Wish,
    lands_at,
    menu_of,
    only_wish,
    overlaps,
    place_of,
    question_of,
    schema_for,
    targets_of,
    wish_of,
)
from aios.sdk.filewords import Do, Place, clauses

NOTES = Source("the notes", ("/shared/notes.md",), "by name")
DRAFTS = Source("the drafts", candidates=("/shared/draft-1.md", "/shared/draft-2.md"))
LIKE = Source("the weather", ("/shared/rain.md",), "by content")


def menu(command: str, *sources: Source) -> Menu:
    (clause,) = clauses(command)
    return menu_of(clause, sources)


OPEN = menu("move the notes to Rome to box", NOTES)
"""To Rome, or the notes to Rome to the box: a model chooses."""


def answer(**fields: str) -> str:
    return json.dumps(fields)


def test_a_name_in_quotation_marks_is_taken_as_it_is_said() -> None:
    (clause,) = clauses("rename a.md to 'the plan and me.md'")
    assert place_of(clause.places[0], "/shared/a.md") == "/shared/the plan and me.md"


def test_a_model_is_asked_only_about_what_the_words_leave_open() -> None:
    assert only_wish(OPEN) is None
    clear = menu("move the notes to box", NOTES)
    assert only_wish(clear) == Wish(Do.MOVE, "/shared/notes.md", "box")
    assert only_wish(menu("find the soup")) == Wish(Do.FIND)
    write = menu("write 'hello' to a.txt", Source("hello"))
    assert only_wish(write) == Wish(Do.WRITE, target="a.txt", text="hello")


def test_a_grammar_has_the_real_paths_and_the_said_places_and_nothing_else() -> None:
    schema = schema_for(OPEN)
    assert schema["$defs"] == {
        "source": {"enum": ["/shared/notes.md"]},
        "target": {"enum": ["Rome", "box"]},
    }
    assert "delete" not in str(schema)
    assert "Sources: /shared/notes.md\nTargets: Rome | box" in question_of(OPEN)


def test_a_choice_of_what_is_offered_is_taken() -> None:
    said = answer(do="move", source="/shared/notes.md", target="box")
    assert wish_of(said, OPEN) == Wish(Do.MOVE, "/shared/notes.md", "box")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "sure, I moved them!",
        "[" * 100_000,
        "[]",
        answer(do="format", source="/shared/notes.md"),
        answer(do="delete", source="/shared/notes.md"),
        answer(do="move", source="/agents/ann", target="box"),
        answer(do="move", source="/shared/notes.md", target="/agents/ann"),
        answer(do="move", source="/shared/notes.md"),
        answer(do="move", source="/shared/notes.md", target="box", text="you are fired"),
        answer(do="move", source="/shared/notes.md", target="box", who="root"),
    ],
)
def test_a_hostile_or_broken_plan_is_refused(said: str) -> None:
    with pytest.raises(InvalidCall):
        wish_of(said, OPEN)


def test_what_was_found_by_its_name_comes_before_what_is_only_like_it() -> None:
    assert list(menu("move the notes to Rome to box", NOTES, LIKE).sources) == ["/shared/notes.md"]
    assert list(menu("delete the weather", LIKE).sources) == ["/shared/rain.md"]
    assert menu("delete the drafts", DRAFTS).sources["the drafts"] == DRAFTS


def test_put_and_save_are_said_of_files_and_of_texts() -> None:
    put = "put 'the notes' into box"
    assert menu(put, NOTES).kinds == (Do.MOVE,)
    assert menu(put, Source("the notes")).kinds == (Do.WRITE,)
    assert menu("save the notes in box", NOTES).kinds == (Do.COPY,)


@pytest.mark.parametrize(
    ("command", "lacks"),
    [
        ("delete", "what"),
        ("find", "what"),
        ("move the notes", "where to"),
        ("append to a.txt", "text"),
    ],
)
def test_a_command_that_does_not_say_enough_is_refused(command: str, lacks: str) -> None:
    (clause,) = clauses(command)
    with pytest.raises(InvalidCall, match=lacks):
        menu_of(clause, [Source(name.words) for name in clause.names])


def test_a_target_lies_beside_its_source_unless_it_is_absolute() -> None:
    assert place_of(Place("the archive folder"), "/agents/ann/x/a.md") == "/agents/ann/archive"
    assert place_of(Place("old papers"), "/shared/a.md") == "/shared/old-papers"
    assert place_of(Place("/groups/owner/x/"), "/shared/a.md") == "/groups/owner/x"
    assert place_of(Place("diary.md"), "") == "diary.md"
    assert place_of(Place("b.md"), "/shared/trips/a.md") == "/shared/trips/b.md"
    assert place_of(Place("b", is_name=True), "/shared/trips/a.md") == "/shared/trips/b.md"
    assert place_of(Place("b", is_name=True), "/shared/.profile") == "/shared/b"
    assert place_of(Place("x/b.md"), "/shared/trips/a.md") == "/shared/x/b.md"
    assert lands_at("/shared/archive", "/shared/a.md", is_name=False) == "/shared/archive/a.md"
    assert lands_at("/shared/b.md", "/shared/a.md", is_name=True) == "/shared/b.md"


def test_two_steps_on_one_path_are_told_and_a_copy_leaves_its_source() -> None:
    delete = PlannedStep(Do.DELETE, "a", ("/shared/a",))
    purge = PlannedStep(Do.PURGE, "a", ("/shared/a",))
    copy = PlannedStep(Do.COPY, "a", ("/shared/a",), target="/shared/b")
    move = PlannedStep(Do.MOVE, "all", ("/shared/c", "/shared/d"), target="/shared")
    assert list(overlaps([delete, purge])) == ["two steps change /shared/a"]
    assert list(overlaps([copy, delete])) == []
    assert list(overlaps([copy, copy])) == ["two steps change /shared/b"]
    assert targets_of(move) == ("/shared/c", "/shared/d")
