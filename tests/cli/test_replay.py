"""aios replay on the journal of a home on which no kernel runs any more."""

from functools import partial
from pathlib import Path

import apsw
import pytest
from tests.cli.conftest import Aios, serving
from tests.cli.test_journal import calls

from aios.abi.types import Pid
from aios.sdk.files import Files


@pytest.fixture
def left(home: Path) -> Path:
    """A home with two processes: bob made 3 calls, ann 4."""
    with serving(home, is_durable=True) as served:
        calls(served, served.admit("bob"), 3)
        calls(served, served.admit("ann"), 4)
    return home


def test_each_call_is_told_again_without_a_kernel(left: Path, aios: Aios) -> None:
    assert left.exists()
    rows = aios("replay", "bob", "--json").rows()
    assert [(row["seq"], row["call"], row["outcome"]) for row in rows] == [
        (1, "getpid", "done"),
        (2, "getpid", "done"),
        (3, "getpid", "done"),
    ]
    shown = aios("replay", "bob").out
    assert '"name":"bob"' in shown
    assert "3 calls told in" in shown


def test_until_stops_behind_a_call(left: Path, aios: Aios) -> None:
    assert left.exists()
    assert [row["seq"] for row in aios("replay", "ann", "--until", "2", "--json").rows()] == [1, 2]


def test_the_first_difference_is_shown_with_both_sides(left: Path, aios: Aios) -> None:
    assert left.exists()
    compared = aios("replay", "bob", "--diff", "ann", "--json")
    assert compared.code == 1
    found = compared.rows()[0]
    assert (found["is_same"], found["kind"], found["n_equal"]) == (False, "answer", 0)
    text = aios("replay", "bob", "--diff", "ann").out
    assert '"name":"bob"' in text
    assert '"name":"ann"' in text


def test_of_long_texts_the_place_is_shown_where_they_part(home: Path, aios: Aios) -> None:
    with serving(home, is_durable=True) as served:
        for name, what in (("bob", "the cat"), ("ann", "the dog")):
            files = Files(served.kernel.gate(Pid(served.admit(name))))
            served.portal.call(partial(files.write, "note", "1", message=f"{'so ' * 200}{what}"))
    text = aios("replay", "bob", "--diff", "ann").out
    assert "they ask for different things" in text
    assert "so so the cat" in text
    assert "so so the dog" in text


def test_contents_of_files_are_shown_as_text_and_what_is_none_by_its_size(
    home: Path, aios: Aios
) -> None:
    with serving(home, is_durable=True) as served:
        files = Files(served.kernel.gate(Pid(served.admit("bob"))))
        served.portal.call(partial(files.write, "note", "a line\nand another"))
        served.portal.call(partial(files.write, "raw", b"\xff\xfe\x00"))
        served.portal.call(partial(files.read, "note"))
    shown = aios("replay", "bob").out
    assert shown.count("a line\\nand another") == 2, "what was written, and what was read"
    assert "(3 bytes)" in shown
    assert "YSBsaW5l" not in shown
    assert "YSBsaW5l" in aios("replay", "bob", "--json").out, "programs read base64"


def test_a_journal_that_does_not_fit_diverges_and_says_where(left: Path, aios: Aios) -> None:
    connection = apsw.Connection(str(left / "aios.db"))
    connection.execute("UPDATE journal_records SET digest = zeroblob(16) WHERE seq = 2")
    connection.close()
    refused = aios("replay", "bob", "--json")
    assert refused.error()["code"] == "replay_divergence"
    assert "call 2 (getpid)" in str(refused.error()["message"])
    assert len(refused.rows()) == 1, "what came before is shown"


def test_to_go_on_live_is_for_processes_and_goes_with_no_other_option(
    left: Path, aios: Aios, tmp_path: Path
) -> None:
    assert left.exists()
    for option in ("--until", "--diff"):
        refused = aios("replay", "bob", "--live-from", "2", option, "1")
        assert (refused.code, "neither" in refused.err) == (2, True)
    (tmp_path / "a.run").write_bytes(b"")
    refused = aios("replay", str(tmp_path / "a.run"), "--live-from", "2", "--json")
    assert (refused.code, "is a file" in str(refused.error()["message"])) == (2, True)
