import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aios.abi.retrieval import FileHit
from aios.sdk.filewords import (
    Choice,
    Do,
    Place,
    choose,
    clauses,
    files_of_name,
    folder_of_name,
    held_back,
    is_vague,
    named_in,
    names_in,
)


def hit(path: str, score: float = 0.5) -> FileHit:
    return FileHit(path, 1, 1, 1, "", score, ("meaning 0.50",), 0.0)


@pytest.mark.parametrize(
    ("command", "kinds", "names", "places", "texts"),
    [
        ("Move the diary to the archive.", (Do.MOVE,), "the diary", "the archive", ""),
        ("please put a.md into /shared/x", (Do.MOVE,), "a.md", "/shared/x", ""),
        ("move the trip to Rome to box", (Do.MOVE,), "the trip|the trip to Rome", "Rome|box", ""),
        (
            "move the mail to aunt to /shared",
            (Do.MOVE,),
            "the mail|the mail to aunt",
            "/shared",
            "",
        ),
        ("copy a.md to x as b.md", (Do.COPY,), "a.md", "x/b.md", ""),
        ("mv a.md b", (Do.MOVE,), "a.md", "b", ""),
        ("get rid of 'my file.txt'", (Do.DELETE,), "of my file.txt", "", ""),
        ("delete a.md for good", (Do.PURGE,), "a.md", "", ""),
        ("permanently remove a.md", (Do.PURGE,), "a.md", "", ""),
        ("delete 'gone for good.md'", (Do.DELETE,), "gone for good.md", "", ""),
        ("purge a.md", (Do.PURGE,), "a.md", "", ""),
        ("which file mentions Rome?", (Do.FIND,), "file mentions Rome", "", ""),
        ("append 'buy milk' to b.txt", (Do.APPEND,), "buy milk", "b.txt", "buy milk"),
        (
            "write see you at nine to b.txt",
            (Do.WRITE,),
            "see you at nine",
            "b.txt",
            "see you at nine",
        ),
        ("create b.txt with the text hello", (Do.WRITE,), "", "b.txt", "hello"),
        ("add the line eggs to b.txt", (Do.APPEND,), "the line eggs", "b.txt", "eggs"),
        ("is there soup?", (Do.FIND,), "is there soup", "", ""),
    ],
)
def test_a_command_is_read(
    command: str, kinds: tuple[Do, ...], names: str, places: str, texts: str
) -> None:
    (clause,) = clauses(command)
    assert clause.kinds == kinds
    assert "|".join(place.words for place in clause.places) == places or not places
    if kinds[0] in (Do.WRITE, Do.APPEND):
        assert "|".join(clause.texts) == texts
    else:
        assert "|".join(clause.names) == names


def test_what_a_name_for_it_is_and_what_a_place() -> None:
    for command, place in (
        ("rename a.md to b.md", Place("b.md", is_name=True)),
        ("copy a.md as b", Place("b", is_name=True)),
        ("copy a.md to b", Place("b")),
    ):
        (clause,) = clauses(command)
        assert clause.places == (place,)


def test_each_verb_behind_a_comma_an_and_or_a_stop_begins_a_clause() -> None:
    found = clauses("Copy a.md and b.md to x, then delete c.md. Find the soup and remove it")
    assert [clause.kinds[0] for clause in found] == [Do.COPY, Do.DELETE, Do.FIND, Do.DELETE]
    assert found[0].names == ("a.md and b.md",)
    assert names_in("a.md, b.md and the plan") == ["a.md", "b.md", "the plan"]
    assert found[3].names == ("the soup",), "it is what the one before names"


def test_without_a_verb_nothing_is_taken_away_and_texts_are_in_quotation_marks() -> None:
    (clause,) = clauses("the diary belongs in the archive")
    assert clause.is_open
    assert clause.kinds == (Do.FIND, Do.MOVE, Do.COPY)
    assert clause.places == (Place("the archive"),)
    (clause,) = clauses("jot down 'milk' in b.txt")
    assert {Do.WRITE, Do.APPEND} <= set(clause.kinds)
    assert clause.texts == ("milk",)
    (clause,) = clauses("verschiebe das Tagebuch")
    assert Place("das Tagebuch") in clause.places


@example("0?,0")
@given(st.text(max_size=200))
def test_any_command_is_read_and_no_piece_is_made_up(command: str) -> None:
    """A comma goes with the word before it, which loses what ended it: `a?, b` has the pieces `a`, `b` and `a, b`."""
    said = "".join(command.split())
    for clause in clauses(command):
        for piece in (*clause.names, *(place.words for place in clause.places), *clause.texts):
            assert all("".join(word.split()).rstrip(",;") in said for word in piece.split(" "))


def test_a_name_is_chosen_only_when_it_is_clear() -> None:
    notes = hit("/shared/travel-notes.md", 0.5)
    others = [hit("/shared/a.md", 0.9), hit("/shared/b.md", 0.8)]
    assert choose("the travel note", [*others, notes]).paths == (notes.path,)
    assert choose("the weather", others).candidates == ("/shared/a.md", "/shared/b.md")
    one = [hit("/shared/a.md", 0.9), hit("/shared/b.md", 0.1)]
    assert choose("the weather", one).paths == ("/shared/a.md",)
    far = msgspec.structs.replace(one[0], why=("meaning 0.21",))
    assert choose("the weather", [far]).candidates == ("/shared/a.md",), "the least unlike of all"
    said = msgspec.structs.replace(far, why=("words: weather", "meaning 0.21"))
    assert choose("the weather", [said]).paths == ("/shared/a.md",)
    drafts = [hit("/shared/draft-1.md", 0.9), hit("/shared/draft-2.md", 0.5)]
    assert choose("the draft", drafts).candidates == tuple(each.path for each in drafts)
    assert len(choose("all drafts", drafts).paths) == len(choose("both drafts", drafts).paths) == 2
    more = [*drafts, hit("/shared/draft-3.md")]
    assert len(choose("both drafts", more).candidates) == 3
    assert choose("old.md", one) == choose("/shared/old", one) == Choice(), (
        "a name is no description"
    )
    assert choose("all", one) == Choice(), "what says nothing means no file"
    assert choose("anything", []) == choose("nothing", []) == Choice()


def test_a_file_name_means_no_file_whose_name_has_its_words_and_others() -> None:
    hits = [hit("/shared/plan-b.txt"), hit("/shared/archive/my-letter.md")]
    for name in ("plan.txt", "PLAN.txt", "the plan.txt"):
        assert choose(name, hits) == Choice(candidates=("/shared/plan-b.txt",))
    assert choose("plan.md", hits) == Choice()
    assert choose("the plan", hits).paths == ("/shared/plan-b.txt",), "a description"
    for name in ("plan-b.txt", "Plan b.TXT", "shared/plan-b.txt"):
        assert choose(name, hits).paths == ("/shared/plan-b.txt",)
    assert choose("the letter in /shared/archive", hits).paths == ("/shared/archive/my-letter.md",)


@pytest.mark.parametrize(
    "name",
    ["my plan.txt", "the file my plan.txt", "of my plan.txt", "My plan.txt file", "/my plan.txt"],
)
def test_words_that_say_nothing_are_a_part_of_the_name_that_has_them(name: str) -> None:
    hits = [hit("/shared/plan.txt"), hit("/shared/my plan.txt")]
    assert choose(name, hits).paths == ("/shared/my plan.txt",)
    assert files_of_name(name, hits).paths == ("/shared/my plan.txt",)
    assert choose("the plan.txt", hits).paths == ("/shared/plan.txt",)
    assert choose(name, hits[:1]).paths == ("/shared/plan.txt",), "no other has more of it"


def test_a_file_that_is_called_all_is_one() -> None:
    hits = [hit("/shared/notes.md"), hit("/shared/all notes.md"), hit("/shared/my-notes.md")]
    assert choose("all notes.md", hits).paths == ("/shared/all notes.md",)
    assert len(choose("all notes", hits).paths) == 3


def test_a_text_goes_to_the_file_of_just_that_name() -> None:
    hits = [hit("/shared/plan-b.txt"), hit("/shared/diary.md"), hit("/shared/old/diary.txt")]
    assert files_of_name("the plan b", hits).paths == ("/shared/plan-b.txt",)
    assert files_of_name("the plan", hits) == Choice(candidates=("/shared/plan-b.txt",))
    assert files_of_name("plan.txt", hits) == Choice(), "it is a new one"
    assert len(files_of_name("diary", hits).candidates) == 2


@pytest.mark.parametrize(
    "name",
    [
        "'not it.md'",
        '"don\'t.md"',
        "`not it.md`",
        "\u00abnot it.md\u00bb",
        "\u2018not it.md\u2019",
        "\u201enot it.md\u201c",
        "\u201cnot it.md\u201d",
    ],
)
def test_quotation_marks_of_any_kind_hold_a_name_together(name: str) -> None:
    (clause,) = clauses(f"delete {name}")
    assert clause.names == (name[1:-1],)
    assert held_back(f"delete {name}") == ""


def test_a_whole_name_comes_before_a_part_of_one_and_a_folder_is_one_too() -> None:
    hits = [hit("/shared/old-report.txt"), hit("/shared/report.md"), hit("/shared/trips/rome.md")]
    assert choose("the report", hits).paths == ("/shared/report.md",)
    assert choose("report.md", hits).paths == ("/shared/report.md",)
    assert choose("the trips folder", hits).paths == ("/shared/trips",)
    assert folder_of_name("trips", hits) == "/shared/trips"
    twice = [*hits, hit("/agents/ann/trips/x.md")]
    assert folder_of_name("trips", twice) == ""
    assert named_in("the report is old", hits) == ["/shared/old-report.txt", "/shared/report.md"]


@pytest.mark.parametrize(
    "command",
    [
        "Please, delete a.md",
        "could you please delete a.md?",
        "I'd like you to delete a.md",
        "let\u2019s delete a.md",
        "ok, go ahead and delete a.md",
        "1. delete a.md",
        "permanently delete a.md",
        "get rid of a.md",
    ],
)
def test_polite_words_before_a_verb_leave_its_meaning(command: str) -> None:
    assert clauses(command)[-1].before == ""


def test_polite_words_at_the_end_are_no_part_of_a_name() -> None:
    for end in (", please?", " now", " immediately.", " please, thanks!"):
        (clause,) = clauses(f"could you move a.md to archive{end}")
        assert (clause.names, clause.places) == (("a.md",), (Place("archive"),))
        assert clauses(f"delete a.md{end}")[0].names == ("a.md",)
    assert clauses("delete now")[0].names == ("now",)
    assert clauses("delete 'a now'")[0].names == ("a now",)
    assert clauses("create a.md saying do it now")[0].texts == ("do it now",)
    assert clauses("find what is due now")[0].names == ("what is due now",)


def test_all_other_words_before_a_verb_are_kept() -> None:
    for before in ("do n't", "no need to", "can I", "may I", "she said", "undo", "in /x", "'a.md'"):
        (clause,) = clauses(f"{before} delete a.md")
        assert clause.before == before.strip("'")
    assert clauses("create a.md with 'x'")[0].is_new


def test_where_to_is_vague_if_more_than_a_name_is_said() -> None:
    for words, is_there in (
        ("copy a.md to archive and keep it", True),
        ("copy a.md to tax papers", True),
        ("rename a.md to b.md tomorrow", True),
        ("rename a.md to old plan and tell me", True),
        ("rename a.md to the old plan.md", False),
        ("copy a.md to 'archive and keep'", False),
        ("copy a.md to my archive", False),
    ):
        assert is_vague(clauses(words)[0].places[0]) == is_there, words


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("do not delete a.md", "not"),
        ("please don't delete a.md", "don't"),
        ("don\u2019t purge a.md", "don\u2019t"),
        ("Never purge a.md!", "Never"),
        ("should I delete a.md?", "should"),
        ("can you tell me how to delete a.md", "how"),
        ("delete all drafts except b.md", "except"),
        ("delete everything other than b.md", "other than"),
        ("copy a.md to x, do not delete it", "not"),
        ("delete a.md unless b.md exists", "unless"),
        ("delete a.md?", "?"),
        ("could you delete a.md?", ""),
        ("delete not.md and do-not-disturb.md", ""),
        ("write 'do not enter' to sign.md", ""),
        ("move the other notes to x", ""),
    ],
)
def test_what_is_not_to_be_done_is_heard(command: str, word: str) -> None:
    assert held_back(command) == word
