import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.retrieval import FileHit
from aios.errors import InvalidCall
from aios.sdk.fileplan import (
    Do,
    PlannedStep,
    choose,
    lands_at,
    overlaps,
    place_of,
    schema_for,
    spans,
    wishes_of,
)

COMMAND = "Move the travel notes to archive, delete nothing, then append 'see you' to diary.md"


def plan(*steps: object) -> str:
    return json.dumps({"steps": steps})


def hit(path: str, score: float) -> FileHit:
    return FileHit(path, 1, 1, 1, "", score, ("meaning 0.50",), 0.0)


def test_the_names_of_a_plan_are_pieces_of_the_command() -> None:
    found = spans(COMMAND)
    assert {"the travel notes", "archive", "see you", "diary.md"} <= set(found)
    said = str(schema_for(COMMAND))
    assert "the travel notes" in said
    assert "passwd" not in said


def test_a_plan_in_the_words_of_the_command_is_taken() -> None:
    answer = plan(
        {"do": "move", "source": "the travel notes", "target": "archive"},
        {"do": "append", "target": "diary.md", "text": "see you"},
    )
    assert [each.do for each in wishes_of(answer, COMMAND)] == [Do.MOVE, Do.APPEND]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "sure, I moved them!",
        "[" * 100_000,
        plan(),
        plan(*[{"do": "find", "source": "archive"}] * 9),
        plan({"do": "format", "source": "archive"}),
        plan({"do": "delete", "source": "/agents/ann"}),
        plan({"do": "delete", "source": "/"}),
        plan({"do": "delete", "source": "rave"}),
        plan({"do": "delete", "source": "archive", "target": "archive"}),
        plan({"do": "move", "source": "archive"}),
        plan({"do": "write", "target": "diary.md", "text": "you are fired"}),
        plan({"do": "find", "source": "archive", "as": "root"}),
    ],
)
def test_a_hostile_or_broken_plan_is_refused(answer: str) -> None:
    with pytest.raises(InvalidCall):
        wishes_of(answer, COMMAND)


def test_nothing_is_taken_away_unless_the_command_says_so_and_repeats_count_once() -> None:
    find = {"do": "find", "source": "the soup"}
    assert len(wishes_of(plan(find, find), "find the soup")) == 1
    for do in ("delete", "purge"):
        with pytest.raises(InvalidCall, match="does not say"):
            wishes_of(plan(find, {"do": do, "source": "the soup"}), "find the soup")
    with pytest.raises(InvalidCall, match="does not say"):
        wishes_of(plan({"do": "purge", "source": "the soup"}), "delete the soup")
    assert wishes_of(plan({"do": "delete", "source": "the soup"}), "Remove the soup")


@given(st.text(max_size=200))
def test_every_piece_of_any_command_may_be_named(command: str) -> None:
    for piece in spans(command)[:20]:
        wish = {"do": "find", "source": piece}
        assert wishes_of(plan(wish), command)[0].source == piece


def test_a_name_is_chosen_only_when_it_is_clear() -> None:
    notes = hit("/shared/travel-notes.md", 0.5)
    others = [hit("/shared/a.md", 0.9), hit("/shared/b.md", 0.8)]
    assert choose("the travel note", [*others, notes]).paths == (notes.path,)
    assert choose("the weather", others).candidates == ("/shared/a.md", "/shared/b.md")
    assert choose("the weather", [hit("/shared/a.md", 0.9), hit("/shared/b.md", 0.1)]).paths == (
        "/shared/a.md",
    )
    drafts = [hit("/shared/draft-1.md", 0.9), hit("/shared/draft-2.md", 0.5)]
    assert choose("the draft", drafts).candidates == tuple(each.path for each in drafts)
    assert len(choose("all drafts", drafts).paths) == 2
    assert choose("anything", []) == choose("nothing", [])


def test_a_target_lies_beside_its_source_unless_it_is_absolute() -> None:
    assert place_of("the archive folder", "/agents/ann/x/a.md") == "/agents/ann/archive"
    assert place_of("old papers", "/shared/a.md") == "/shared/old-papers"
    assert place_of("/groups/owner/x/", "/shared/a.md") == "/groups/owner/x"
    assert place_of("diary.md", "") == "diary.md"
    assert lands_at("/shared/archive", "/shared/a.md", is_folder=False) == "/shared/archive/a.md"
    assert lands_at("/shared/b.md", "/shared/a.md", is_folder=False) == "/shared/b.md"


def test_two_steps_on_one_path_are_told() -> None:
    steps = [
        PlannedStep(Do.DELETE, "a", ("/shared/a",)),
        PlannedStep(Do.PURGE, "a", ("/shared/a",)),
    ]
    assert list(overlaps(steps)) == ["two steps change /shared/a"]
