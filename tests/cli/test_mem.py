"""aios mem against a kernel that runs."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served
from tests.kernel.mail.test_post import idle

from aios.sdk.memory import Memory


def test_notes_are_added_found_listed_and_forgotten(served: Served, aios: Aios) -> None:
    assert served.kernel is not None
    note = aios("mem", "add", "The user eats no\x1b[2J meat", "--tag", "food", "--json").rows()[0]
    assert aios("mem", "add", "Berlin is a city", "--scope", "group").out.startswith("note ")
    hit = aios("mem", "search", "meat", "--json").rows()[0]
    assert isinstance(hit["note"], dict)
    assert hit["note"]["id"] == note["id"]
    shown = aios("mem", "search", "meat").out
    assert "words #1" in shown
    assert "\x1b[2J" not in shown
    assert "Berlin" not in aios("mem", "ls", "--tag", "food").out
    assert [row["scope"] for row in aios("mem", "ls", "--json").rows()] == ["shared", "group"]
    assert aios("mem", "forget", str(note["id"])).out == f"forgot {note['id']}\n"
    gone = aios("mem", "forget", str(note["id"]))
    assert gone.code == 4
    assert "`aios mem ls`" in gone.err
    for word in ("nosuch", "0", "-1", "1.5"):
        wrong = aios("mem", "forget", "--", word)
        assert wrong.code == 2
        assert f"`{word}` is no number of a note; `aios mem ls`" in wrong.err


def test_the_private_notes_of_an_agent_are_listed_and_exported(served: Served, aios: Aios) -> None:
    kernel, call = served.kernel, served.portal.call
    boss = call(kernel.spawn_task, "boss", idle)
    reader = call(partial(kernel.spawn_task, "reader", idle, ppid=boss))
    for pid, text in ((boss, "of the boss"), (reader, "of the reader")):
        call(Memory(kernel.gate(pid)).remember, text)
    call(partial(Memory(kernel.gate(reader)).remember, "for all", scope="shared"))
    shown = aios("mem", "ls", "--agent", "boss/reader").out
    assert "agent boss/reader" in shown
    assert "of the reader" in shown
    assert "of the boss" not in shown
    for verb in ("ls", "export"):
        rows = aios("mem", verb, "--agent", "boss", "--json").rows()
        assert [(row["agent"], row["text"]) for row in rows] == [("boss", "of the boss")]
        assert aios("mem", verb, "--agent", "reader", "--json").out == ""
    assert "agent boss/reader" in aios("mem", "show", "2").out
    assert [row["agent"] for row in aios("mem", "export").rows()] == ["boss", "boss/reader", ""]


def test_of_notes_of_which_one_is_not_there_none_is_forgotten(served: Served, aios: Aios) -> None:
    assert served.kernel is not None
    for text in ("one", "two", "three"):
        aios("mem", "add", text)
    failed = aios("mem", "forget", "1", "2", "999")
    assert (failed.code, failed.out) == (4, "")
    assert "no note 999" in failed.err
    assert len(aios("mem", "ls", "--json").rows()) == 3
    aios("mem", "update", "2", "two, again")
    assert aios("mem", "forget", "4", "2", "1").out == "forgot 4, 2\nforgot 1\n"
    assert [row["id"] for row in aios("mem", "ls", "--json").rows()] == [3]


def test_notes_are_imported_from_standard_input(
    served: Served, aios: Aios, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.kernel is not None
    aios("mem", "add", "the tide is high")
    file = tmp_path / "notes.jsonl"
    file.write_text(aios("mem", "export").out)
    aios("mem", "forget", "1")
    with file.open(encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert aios("mem", "import", "-", "--json").rows() == [{"n_notes": 1, "n_left_out": 0}]
    file.write_text("{}")
    with file.open(encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        broken = aios("mem", "import", "-")
    assert "line 1 of standard input is no exported note" in broken.err
    assert [row["text"] for row in aios("mem", "ls", "--json").rows()] == ["the tide is high"]


def test_a_note_is_shown_whole_with_what_became_of_it(served: Served, aios: Aios) -> None:
    memory = Memory(served.kernel.init_gate())
    long = "boat " * 50
    old = served.portal.call(memory.remember, long)
    new = served.portal.call(memory.update, old, "the sail is white")
    assert long.strip() not in aios("mem", "ls", "--all").out
    shown = aios("mem", "show", str(old)).out
    assert long.strip() in shown
    assert f"replaced by {new}" in shown
    assert f"replaces    {old}" in aios("mem", "show", str(new)).out
    details = aios("mem", "show", str(new), "--json").rows()[0]
    assert isinstance(details["note"], dict)
    assert details["note"]["supersedes"] == old
    assert aios("mem", "show", "99").err.startswith("error: no note 99\n")


def test_what_says_nothing_or_fits_nothing_is_told(served: Served, aios: Aios) -> None:
    assert served.kernel is not None
    for words in (("mem", "add"), ("mem", "search")):
        empty = aios(*words, " ")
        assert empty.code == 2
        assert "it is empty" in empty.err
    nothing = aios("mem", "search", "zebra")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no note fits" in nothing.err
    assert "no file fits" in aios("fs", "search", "zebra").err


def test_what_is_exported_can_be_imported(served: Served, aios: Aios, tmp_path: Path) -> None:
    assert served.kernel is not None
    aios("mem", "add", "one", "--importance", "0.9", "--tag", "t")
    aios("mem", "add", "two")
    file = tmp_path / "notes.jsonl"
    file.write_text(aios("mem", "export").out)
    assert aios("mem", "import", file, "--scope", "group", "--json").rows() == [
        {"n_notes": 2, "n_left_out": 0}
    ]
    one, two = aios("mem", "ls", "--scope", "group", "--json").rows()
    assert (one["text"], one["importance"], one["tags"]) == ("one", 0.9, ["t"])
    assert isinstance(two["origin"], dict)
    assert two["origin"]["source"] == "(note 2 of owner/init)"
    exported = file.read_bytes()
    assert two["expires_unix_s"] is None
    passing = [
        {**json.loads(line), "expires_unix_s": at}
        for line, at in zip(exported.splitlines(), (1.0, 4e9), strict=True)
    ]
    file.write_text("\n".join(map(json.dumps, passing)))
    aios("mem", "forget", str(two["id"]))
    again = aios("mem", "import", file, "--scope", "shared").out
    assert again == "1 note; 1 left out (expired, or here already)\n"
    rows = aios("mem", "ls", "--json").rows()
    (kept,) = (row for row in rows if row["expires_unix_s"] is not None)
    assert kept["expires_unix_s"] == 4e9
    assert aios("mem", "import", file, "--json").rows() == [{"n_notes": 0, "n_left_out": 2}]
    for bad, line in ((b"\nno note\n", 2), (exported + b"\xff\xfe\n", 3)):
        file.write_bytes(bad)
        broken = aios("mem", "import", file)
        assert broken.code == 2
        assert f"line {line} of {file} is no exported note" in broken.err
    assert len(aios("mem", "ls", "--json").rows()) == 4, "all of a file, or nothing"


def test_what_an_agent_kept_for_itself_is_not_shown_to_all_by_an_import(
    served: Served, aios: Aios, tmp_path: Path
) -> None:
    ann = served.kernel.admit("ann")[0]
    memory = Memory(served.kernel.gate(ann.pid))
    served.portal.call(memory.remember, "a secret of ann")
    file = tmp_path / "notes.jsonl"
    file.write_text(aios("mem", "export").out)
    aios("mem", "forget", "1")
    assert aios("mem", "import", file, "--json").rows() == [{"n_notes": 1, "n_left_out": 0}]
    (mine,) = aios("mem", "ls", "--json").rows()
    assert (mine["scope"], mine["text"]) == ("agent", "a secret of ann")
    assert aios("mem", "ls", "--scope", "shared", "--json").rows() == []


def test_an_import_leaves_out_what_is_here_still_and_what_was_replaced(
    served: Served, aios: Aios, tmp_path: Path
) -> None:
    assert served.kernel is not None
    for text in ("stays", "changes", "goes"):
        aios("mem", "add", text)
    file = tmp_path / "notes.jsonl"
    file.write_text(aios("mem", "export").out)
    aios("mem", "update", "2", "changed")
    aios("mem", "forget", "3")
    assert aios("mem", "import", file, "--json").rows() == [{"n_notes": 1, "n_left_out": 2}]
    texts = [row["text"] for row in aios("mem", "ls", "--json").rows()]
    assert texts == ["stays", "changed", "goes"]


def test_a_note_is_changed_tagged_and_linked(served: Served, aios: Aios) -> None:
    assert served.kernel is not None
    aios("mem", "add", "meat", "--tag", "food", "--from", "2020-01-01T00:00", "--until", "+2d")
    aios("mem", "add", "sails", "--expires", "+1h")
    first, second = aios("mem", "ls", "--json").rows()
    assert float(str(first["valid_to_unix_s"])) - float(str(first["created_unix_s"])) > 86_400
    assert float(str(first["valid_from_unix_s"])) < 1.6e9
    assert (
        3_500 < float(str(second["expires_unix_s"])) - float(str(second["created_unix_s"])) < 3_700
    )
    assert aios("mem", "add", "x", "--until", "soon").code == 2
    assert aios("mem", "add", "x", "--expires", "2020-01-01T00:00").code == 2
    new = aios("mem", "update", "1", "fish", "--importance", "0.9", "--json").rows()[0]["id"]
    changed = aios("mem", "show", str(new), "--json").rows()[0]["note"]
    assert isinstance(changed, dict)
    assert (changed["text"], changed["tags"], changed["importance"]) == ("fish", ["food"], 0.9)
    assert aios("mem", "tag", "2", "--add", "boat").out == "note 2: boat\n"
    assert aios("mem", "tag", "2", "--remove", "boat").out == "note 2: no tags\n"
    assert aios("mem", "tag", "2").code == 2
    assert aios("mem", "tag", "1", "--add", "late").code != 0, "another took its place"
    assert aios("mem", "link", "2", str(new)).out == f"note 2 is linked with {new}\n"
    assert aios("mem", "link", "2", str(new), "--off").out == "note 2 is linked with none\n"


@pytest.mark.usefixtures("served")
def test_a_note_is_found_by_the_time_at_which_it_holds(aios: Aios) -> None:
    assert aios("mem", "add", "Party in the garden", "--from", "+2d", "--until", "+3d").code == 0
    assert aios("mem", "search", "party").err.startswith("no note fits")
    assert "Party" in aios("mem", "search", "party", "--at", "+60h").out
    assert aios("mem", "search", "party", "--at", "+4d").out == ""
    wrong = aios("mem", "search", "party", "--at", "soon")
    assert (wrong.code, "`--at`" in wrong.err) == (2, True)


@pytest.mark.usefixtures("served")
def test_what_a_note_may_not_be_is_told_in_words_of_the_command(aios: Aios) -> None:
    for words, told in (
        (("add", "x", "--tag", " "), "`--tag`: expected text that is not only blanks"),
        (("add", "x", "--tag", "a" * 65), "`--tag`: expected text of at most 64 characters"),
        (("add", "x", "--source", "a" * 5_000), "`--source`: expected text of at most 4096"),
        (("add", "x", "--until", "2020-01-01"), "hint: `--until` must be later"),
        (("add", "x", "--expires", "2020-01-01"), "hint: `--expires` is over"),
        (("search", "a" * 70_000), "`QUERY`: expected text of at most 65536 characters"),
        (("tag", "1", "--add", ""), "`--add`: expected"),
        (("tag", "1", "--add", "x", "--remove", "x"), "`x` cannot be both added and removed"),
    ):
        ran = aios("mem", *words)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.err
        assert "$" not in ran.err
    assert aios("mem", "ls", "--json").rows() == []
