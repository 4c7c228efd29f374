"""Names in commands about files, and the files that they mean."""

import msgspec
import pytest

from aios.abi.retrieval import FileHit
from aios.sdk.filenames import (
    BY_LIKE_NAME,
    BY_NAME,
    Choice,
    Name,
    choose,
    files_of_name,
    folder_of_all,
    folder_of_name,
    named_in,
)


def hit(path: str, score: float = 0.5) -> FileHit:
    return FileHit(path, 1, 1, 1, "", score, ("meaning 0.50",), 0.0)


def test_a_name_is_chosen_only_when_it_is_clear() -> None:
    notes = hit("/shared/travel-notes.md", 0.5)
    others = [hit("/shared/a.md", 0.9), hit("/shared/b.md", 0.8)]
    assert choose(Name("the travel note"), [*others, notes]).paths == (notes.path,)
    assert choose(Name("the weather"), others).candidates == ("/shared/a.md", "/shared/b.md")
    one = [hit("/shared/a.md", 0.9), hit("/shared/b.md", 0.1)]
    assert choose(Name("the weather"), one).paths == ("/shared/a.md",)
    far = msgspec.structs.replace(one[0], why=("meaning 0.21",))
    assert choose(Name("the weather"), [far]).candidates == ("/shared/a.md",), (
        "the least unlike of all"
    )
    said = msgspec.structs.replace(far, why=("words: weather", "meaning 0.21"))
    assert choose(Name("the weather"), [said]).paths == ("/shared/a.md",)
    drafts = [hit("/shared/draft-1.md", 0.9), hit("/shared/draft-2.md", 0.5)]
    assert choose(Name("the draft"), drafts).candidates == tuple(each.path for each in drafts)
    assert (
        len(choose(Name("all drafts"), drafts).paths)
        == len(choose(Name("both drafts"), drafts).paths)
        == 2
    )
    more = [*drafts, hit("/shared/draft-3.md")]
    assert len(choose(Name("both drafts"), more).candidates) == 3
    assert choose(Name("old.md"), one) == choose(Name("/shared/old"), one) == Choice(), (
        "a name is no description"
    )
    assert choose(Name("all"), one) == Choice(), "what says nothing means no file"
    assert choose(Name("anything"), []) == choose(Name("nothing"), []) == Choice()


def test_a_file_name_means_no_file_whose_name_has_its_words_and_others() -> None:
    hits = [hit("/shared/plan-b.txt"), hit("/shared/archive/my-letter.md")]
    for name in ("plan.txt", "PLAN.txt", "the plan.txt"):
        assert choose(Name(name), hits) == Choice(candidates=("/shared/plan-b.txt",))
    assert choose(Name("plan.md"), hits) == Choice()
    assert choose(Name("the plan"), hits).paths == ("/shared/plan-b.txt",), "a description"
    for name in ("plan-b.txt", "Plan b.TXT", "shared/plan-b.txt"):
        assert choose(Name(name), hits).paths == ("/shared/plan-b.txt",)
    assert choose(Name("the letter in /shared/archive"), hits).paths == (
        "/shared/archive/my-letter.md",
    )


@pytest.mark.parametrize(
    "name",
    ["my plan.txt", "the file my plan.txt", "of my plan.txt", "My plan.txt file"],
)
def test_words_that_say_nothing_are_a_part_of_the_name_that_has_them(name: str) -> None:
    hits = [hit("/shared/plan.txt"), hit("/shared/my plan.txt")]
    assert choose(Name(name), hits).paths == ("/shared/my plan.txt",)
    assert files_of_name(Name(name), hits).paths == ("/shared/my plan.txt",)
    assert choose(Name("the plan.txt"), hits).paths == ("/shared/plan.txt",)
    assert choose(Name(name), hits[:1]).paths == ("/shared/plan.txt",), "no other has more of it"


def test_a_file_that_is_called_all_is_one() -> None:
    hits = [hit("/shared/notes.md"), hit("/shared/all notes.md"), hit("/shared/my-notes.md")]
    assert choose(Name("all notes.md"), hits).paths == ("/shared/all notes.md",)
    assert len(choose(Name("all notes"), hits).paths) == 3


def test_a_text_goes_to_the_file_of_just_that_name() -> None:
    hits = [hit("/shared/plan-b.txt"), hit("/shared/diary.md"), hit("/shared/old/diary.txt")]
    assert files_of_name(Name("the plan b"), hits).paths == ("/shared/plan-b.txt",)
    assert files_of_name(Name("the plan"), hits) == Choice(candidates=("/shared/plan-b.txt",))
    assert files_of_name(Name("plan.txt"), hits) == Choice(), "it is a new one"
    assert len(files_of_name(Name("diary"), hits).candidates) == 2


def test_a_whole_name_comes_before_a_part_of_one_and_a_folder_is_one_too() -> None:
    hits = [hit("/shared/old-report.txt"), hit("/shared/report.md"), hit("/shared/trips/rome.md")]
    assert choose(Name("the report"), hits).paths == ("/shared/report.md",)
    assert choose(Name("report.md"), hits).paths == ("/shared/report.md",)
    assert choose(Name("the trips folder"), hits).paths == ("/shared/trips",)
    assert folder_of_name(Name("trips"), hits) == "/shared/trips"
    twice = [*hits, hit("/agents/ann/trips/x.md")]
    assert folder_of_name(Name("trips"), twice) == ""
    assert named_in("the report is old", hits) == ["/shared/old-report.txt", "/shared/report.md"]


def quoted(words: str) -> Name:
    return Name(words, (words,))


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("my plan.txt", "/shared/plan.txt"),
        ("the report", "/shared/report.md"),
        ("my drafts", "/shared/drafts/a.md"),
        ("a b.md", "/shared/b.md"),
        ("travel notes", "/shared/travel-notes.md"),
        ("notes", "/shared/note.md"),
        ("all drafts", "/shared/drafts/a.md"),
        ("plan", "/shared/plan-b.txt"),
    ],
)
def test_in_quotation_marks_no_other_name_is_meant(words: str, path: str) -> None:
    found = choose(quoted(words), [hit(path)])
    assert found.paths == ()
    assert found.candidates == (path,), "it says which may be meant"
    assert files_of_name(quoted(words), [hit(path)]).paths == ()
    assert folder_of_name(quoted(words), [hit(path)]) == ""


def test_in_quotation_marks_the_extension_and_the_case_may_lack() -> None:
    hits = [hit("/shared/My Plan.txt"), hit("/shared/old drafts/a.md")]
    for words in ("my plan.txt", "My Plan", "shared/my plan.txt"):
        assert choose(quoted(words), hits).paths == ("/shared/My Plan.txt",)
    assert choose(quoted("old drafts"), hits).paths == ("/shared/old drafts",)
    assert folder_of_all(Name("all files in drafts")) == "drafts"
    assert folder_of_all(quoted("all files in drafts")) == ""


def test_what_is_in_quotation_marks_is_whole_beside_other_words_too() -> None:
    hits = [hit("/shared/archive/plan.txt"), hit("/shared/my plan.txt")]
    assert choose(Name("plan.txt in archive", ("plan.txt",)), hits).paths == (hits[0].path,)
    mine = Name("my plan.txt in archive", ("my plan.txt",))
    assert choose(mine, hits[:1]).paths == ()
    assert choose(Name("plan from my archive", ("my archive",)), hits[:1]).paths == ()


def test_a_folder_of_that_name_comes_before_a_file_of_one_like_it() -> None:
    hits = [hit("/agents/ann/draft.md"), hit("/notes/drafts/a.md")]
    for words in ("drafts", "the drafts", "the drafts folder", "the folder drafts"):
        assert choose(Name(words), hits) == Choice(("/notes/drafts",), BY_NAME), words
    assert choose(Name("the draft"), hits) == Choice((hits[0].path,), BY_NAME)
    both = [*hits, hit("/shared/drafts.md")]
    assert choose(Name("drafts"), both).candidates == ("/shared/drafts.md", "/notes/drafts")
    assert choose(Name("the drafts folder"), both).paths == ("/notes/drafts",)


def test_a_name_that_is_only_like_one_says_so() -> None:
    (note,) = hits = [hit("/shared/travel-notes.md")]
    assert choose(Name("travel notes"), hits) == Choice((note.path,), BY_NAME)
    for words in ("the travel note", "the notes", "notes of travel"):
        assert choose(Name(words), hits) == Choice((note.path,), BY_LIKE_NAME)


def test_all_of_a_word_are_not_all_files_of_the_mount_that_has_it() -> None:
    hits = [hit("/notes/README"), hit("/notes/travel notes.md"), hit("/notes/notes/x.md")]
    assert choose(Name("all notes"), hits).paths == (hits[1].path, hits[2].path)
    assert choose(Name("all drafts in shared"), [hit("/shared/draft.md")]).paths


def test_all_of_a_file_name_are_those_of_just_that_name_or_extension() -> None:
    paths = ("/a/plan.txt", "/b/plan.txt", "/b/plan-b.txt", "/b/my plan.txt", "/txt/plan.md")
    hits = [hit(path) for path in paths]
    for words in ("all plan.txt", "every plan.txt", "all files called plan.txt"):
        assert choose(Name(words), hits).paths == paths[:2], words
    assert choose(Name("all .txt files"), hits).paths == paths[:4]
    assert choose(Name("all plans"), hits).paths == paths


def test_two_names_with_nothing_between_are_not_one_of_them() -> None:
    hits = [hit("/shared/report.md"), hit("/shared/report 2026.md")]
    assert choose(Name("report.md report 2026.md"), hits).paths == ()
    assert choose(Name("a.md and b.md"), [hit("/shared/b.md")]).paths == ()


def test_a_whole_path_means_no_file_of_another_folder() -> None:
    assert choose(Name("/notes/a.md"), [hit("/agents/ann/notes/a.md")]).paths == ()
    assert choose(quoted("/notes/a.md"), [hit("/notes/a.md")]).paths == ("/notes/a.md",)


def test_all_in_a_compound_word_is_not_all() -> None:
    hits = [hit("/shared/all-hands-1.md"), hit("/shared/all-hands-2.md")]
    assert choose(Name("all-hands"), hits).candidates == tuple(each.path for each in hits)
    assert len(choose(Name("all hands"), hits).paths) == 2
