import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aios.sdk.filenames import Name
from aios.sdk.filewords import Do, Place, clauses, held_back, is_vague, pattern_in, stray_in


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
        ("get rid of 'my file.txt'", (Do.DELETE,), "my file.txt", "", ""),
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
        assert "|".join(name.words for name in clause.names) == names


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
    assert found[0].names == (Name("a.md and b.md", (), (Name("a.md"), Name("b.md"))),)
    assert found[3].names == (Name("the soup"),), "it is what the one before names"


@pytest.mark.parametrize(
    "writing",
    ["append 'summary' to a.md", "write summary to a.md", "create a.md with 'summary'"],
)
def test_it_behind_a_text_is_the_file_that_the_text_is_written_to(writing: str) -> None:
    assert clauses(f"{writing}, then delete it")[1].names == (Name("a.md"),)


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
        for piece in (
            *(name.words for name in clause.names),
            *(place.words for place in clause.places),
            *clause.texts,
        ):
            assert all("".join(word.split()).rstrip(",;") in said for word in piece.split(" "))


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
    assert clause.names == (Name(name[1:-1], (name[1:-1],)),)
    assert held_back(f"delete {name}") == ""


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
        assert (clause.names, clause.places) == ((Name("a.md"),), (Place("archive"),))
        assert clauses(f"delete a.md{end}")[0].names == (Name("a.md"),)
    assert clauses("delete now")[0].names == (Name("now"),)
    assert clauses("delete 'a now'")[0].names == (Name("a now", ("a now",)),)
    assert clauses("create a.md saying do it now")[0].texts == ("do it now",)
    assert clauses("find what is due now")[0].names == (Name("what is due now"),)


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


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ("a.md, b.md and the plan", (Name("a.md"), Name("b.md"), Name("the plan"))),
        ("'a and b.md' and c.md", (Name("a and b.md", ("a and b.md",)), Name("c.md"))),
        ("'a.md' 'b.md'", (Name("a.md", ("a.md",)), Name("b.md", ("b.md",)))),
        ("'salt and pepper.md'", ()),
        ("the file 'salt, pepper.md'", ()),
        ("a.md", ()),
    ],
)
def test_a_list_has_its_names_and_quotation_marks_hold_one_together(
    said: str, parts: tuple[Name, ...]
) -> None:
    (clause,) = clauses(f"delete {said}")
    assert clause.names[0].parts == parts
    assert clause.names[0].is_quoted == (said.count("'") == 2 and not parts)


def test_a_pronoun_in_quotation_marks_is_a_name_and_one_without_keeps_those_before() -> None:
    first, second = clauses("find 'my old.md' and delete it")
    assert second.names == first.names == (Name("my old.md", ("my old.md",)),)
    assert clauses("find a.md and delete 'it'")[1].names == (Name("it", ("it",)),)


def test_a_pattern_is_seen_outside_of_quotation_marks() -> None:
    for command in ("delete *.md", "move drafts/* to x", "copy a.md to x/*", "rm plan*"):
        assert pattern_in(command), command
    for command in ("* delete a.md", "delete '*.md'", "write '2*3' to x.md", "delete a.md"):
        assert not pattern_in(command), command


def test_quotation_marks_inside_of_others_or_alone_are_seen() -> None:
    for command in (
        """write "say "hi"" to x.md""",
        """write "say "hi" now" to x.md""",
        """delete "my "big" plan.txt\"""",
        "delete `a.md",
        "delete \u201ca.md",
    ):
        assert stray_in(command), command
    for command in ("""write 'say "hi"' to x.md""", "delete it's mine.md", 'delete `a`, "b"'):
        assert not stray_in(command), command
