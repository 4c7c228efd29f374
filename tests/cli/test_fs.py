"""aios fs against a kernel that runs."""

import os
import signal
from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served, Start, serving

from aios.abi.types import Pid
from aios.sdk.files import Files


@pytest.mark.usefixtures("served")
def test_a_file_goes_in_and_comes_out(aios: Aios, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"hello\n" * 1000)
    put = aios("fs", "put", str(source), "/shared/a/hello", "-m", "why", "--json")
    assert '"message":"why"' in put.out
    assert aios("fs", "get", "/shared/a/hello", str(target)).code == 0
    assert target.read_bytes() == source.read_bytes()
    assert aios("fs", "get", "/shared/a/hello", str(target)).code == 6
    assert "`aios fs cat`" in aios("fs", "get", "/shared/a/hello", "-").err
    assert aios("fs", "cat", "/shared/a/hello").out == "hello\n" * 1000
    assert "/shared/a/" in aios("fs", "ls", "/shared").out
    assert [row["path"] for row in aios("fs", "ls", "-r", "--json").rows()] == ["/shared/a/hello"]
    assert aios("fs", "ls", "-r", "-n", "1").err == "", "that is all"
    assert aios("fs", "cp", "/shared/a/hello", "/shared/b").code == 0
    first = aios("fs", "ls", "-r", "-n", "1", "--json")
    assert [row["path"] for row in first.rows()] == ["/shared/a/hello"]
    assert first.err == "there is more; these are the first 1\n"


@pytest.mark.usefixtures("served")
def test_what_is_put_moved_or_copied_into_a_folder_keeps_its_name(
    aios: Aios, tmp_path: Path
) -> None:
    source = tmp_path / "a"
    source.write_text("a")
    for target in ("/shared", "/shared/new/", "/shared/new/b"):
        assert aios("fs", "put", str(source), target).code == 0
    assert aios("fs", "mv", "/shared/a", "/shared/new").code == 6, "there is one of that name"
    assert aios("fs", "mv", "/shared/new/b", "/shared/").code == 0
    assert aios("fs", "cp", "/shared/new", "/shared/other").code == 0
    assert aios("fs", "cp", "/shared/new/", "/shared/other").code == 0
    listed = [row["path"] for row in aios("fs", "ls", "-r", "--json").rows()]
    assert [str(path).removeprefix("/shared/") for path in listed] == [
        *("a", "b", "new/a", "other/a", "other/new/a"),
    ]
    for verb in ("versions", "diff"):
        assert "/shared/new is a folder" in aios("fs", verb, "/shared/new").err


@pytest.mark.usefixtures("served")
def test_what_a_rollback_leaves_is_told(aios: Aios, tmp_path: Path) -> None:
    source = tmp_path / "a"
    transactions = []
    for text in ("one", "two"):
        source.write_text(text)
        put = aios("fs", "put", str(source), "/shared/a", "--json").rows()[0]
        transactions.append(str(put["transaction"]))
    back = aios("fs", "rollback", "--transaction", transactions[0])
    assert back.out == "nothing has changed\n"
    assert "/shared/a is left as it is" in back.err
    assert back.code == 6


@pytest.mark.usefixtures("served")
def test_a_name_that_is_no_text_is_told(aios: Aios) -> None:
    for words in (("fs", "cat", "/shared/b\udcffd"), ("mem", "add", "b\udcffd")):
        told = aios(*words)
        assert told.code == 2
        assert "is no text in UTF-8" in told.err


@pytest.mark.usefixtures("served")
def test_a_deleted_file_is_brought_back(aios: Aios, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for text in ("one\n", "two\n"):
        source.write_text(text)
        aios("fs", "put", str(source), "/shared/a")
    assert "-one\n+two\n" in aios("fs", "diff", "/shared/a").out
    assert aios("fs", "cp", "/shared/a", "/shared/copy").code == 0
    assert aios("fs", "cat", "/shared/copy").out == aios("fs", "cat", "/shared/a").out
    assert aios("fs", "cp", "/shared/none", "/shared/b").code == 4
    assert aios("fs", "mv", "/shared/a", "/shared/b").code == 0
    assert aios("fs", "rm", "/shared/b").code == 0
    assert aios("fs", "cat", "/shared/b").code == 4
    assert "version 4" in aios("fs", "rollback", "/shared/a", "--version", "1").out
    assert aios("fs", "cat", "/shared/a").out == "one\n"
    listed = aios("fs", "versions", "/shared/a").out
    assert "deleted" in listed
    assert "  owner  " in listed
    authors = {row["author"] for row in aios("fs", "versions", "/shared/a", "--json").rows()}
    assert authors == {"owner"}
    unsaid = aios("fs", "rollback", "/shared/a")
    assert unsaid.code == 2
    assert "--version, --at, --transaction, --process" in unsaid.err
    alone = aios("fs", "rollback", "/shared/a", "--version", "1", "--tree")
    assert alone.code == 2
    assert "--tree goes with --process" in alone.err
    assert aios("fs", "purge", "/shared/b", "--keep", "0", "--json").rows()[0]["n_versions"] == 2
    assert aios("fs", "gc", "--json").rows()[0]["n_blobs"] == 0
    assert "/shared" in aios("fs", "df").out
    assert aios("fsck", "--json").rows()[0]["faults"] == []


def test_the_owner_sees_and_shares_what_agents_write(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    bob = Files(served.kernel.gate(Pid(pid)))
    served.portal.call(bob.write, "diary", "d")
    assert aios("fs", "ls", "/agents/bob", "--json").rows()[0]["path"] == "/agents/bob/diary"
    assert "with -r" in aios("fs", "rm", "/agents/bob").err
    assert "it stays" in aios("fs", "rm", "/shared").err
    assert aios("fs", "rm", "-r", "/shared").code == 2
    folder = aios("fs", "cat", "/agents/bob")
    assert folder.code == 4
    assert "/agents/bob is a folder" in folder.err
    assert "`aios fs ls`" in folder.err
    assert aios("fs", "share", "/agents/bob/diary", "eve").code == 0
    assert aios("fs", "share", "/agents/bob/diary", "eve", "--access", "none").code == 0
    assert aios("fs", "share", "/agents/bob/diary", "eve", "--access", "none").err == ""
    assert (
        "nothing is at /agents/bob/soon yet" in aios("fs", "share", "/agents/bob/soon", "eve").err
    )
    assert aios("fs", "rm", "-r", "/agents/bob").code == 0


@pytest.mark.usefixtures("served")
def test_a_folder_that_holds_everything_may_be_empty(aios: Aios) -> None:
    for path in ("/", "/agents", "/shared"):
        assert aios("fs", "ls", path, "--json").rows() == []
    assert aios("fs", "ls", "/agents/nobody").code == 4


@pytest.mark.parametrize("path", ["/etc/passwd", "/shared/../agents/x", "/shared"])
@pytest.mark.usefixtures("served")
def test_what_is_no_path_of_a_file_is_refused(aios: Aios, path: str) -> None:
    assert aios("fs", "cat", path).code == 2


def test_damage_is_told_by_fsck(served: Served, aios: Aios, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("text")
    aios("fs", "put", str(source), "/shared/a")
    served.portal.call(
        served.kernel.db.write, lambda c: c.execute("UPDATE blobs SET data = x'00'").fetchall()
    )
    checked = aios("fsck")
    assert checked.code == 1
    assert "not what was stored" in checked.out


@pytest.mark.usefixtures("served")
def test_changes_are_shown_as_they_come(start: Start, aios: Aios, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("one\n")
    aios("fs", "put", str(source), "/shared/a")
    watching = start("fs", "watch", "/shared", "--since", "0")
    assert "/shared/a" in watching.line()
    aios("fs", "put", str(source), "/shared/b")
    assert "/shared/b" in watching.line()
    watching.signal(signal.SIGINT)
    assert watching.end().code == 130


def test_a_link_is_made_listed_and_ended(home: Path, aios: Aios, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("one\n")
    with serving(home, http=True):
        aios("fs", "put", str(source), "/shared/a")
        made = aios("fs", "share", "/shared/a", "--link", "--for", "30m")
        assert made.out.startswith("http://")
        assert "/aios/files/" in made.out
        (row,) = aios("fs", "links", "--json").rows()
        assert (row["path"], row["token"]) == ("/shared/a", "")
        assert "/shared/a" in aios("fs", "links").out
        assert aios("fs", "unlink", str(row["id"])).code == 0
        assert aios("fs", "unlink", str(row["id"])).code == 4
        refused = aios("fs", "unlink", "1")
        assert (refused.code, "16 hexadecimal digits" in refused.err) == (2, True)
        for wrong in (
            ("--link", "--for", "soon"),
            ("--link", "--for", "0h"),
            (),
            ("bob", "--link"),
        ):
            assert aios("fs", "share", "/shared/a", *wrong).code == 2
    with serving(home):
        assert aios("fs", "share", "/shared/a", "--link").code == 3


def test_the_owner_lets_a_folder_take_so_much(served: Served, aios: Aios, tmp_path: Path) -> None:
    assert served.kernel is not None
    for size in ("2kB", "2KB", "2 kb", "2000"):
        assert aios("fs", "quota", "/shared", size).out == "/shared may take 2.0 kB\n"
    (tmp_path / "a").write_bytes(os.urandom(3_000))
    assert aios("fs", "put", tmp_path / "a", "/shared/a").code == 8
    reset = aios("fs", "quota", "/shared", "default", "--json").rows()
    assert reset == [{"path": "/shared", "quota_bytes": None}]
    assert aios("fs", "put", tmp_path / "a", "/shared/a").code == 0
    for wrong in ("much", "-1", "2Mb"):
        refused = aios("fs", "quota", "--", "/shared", wrong)
        assert refused.code == 2
        assert "say 4096, 500kB, 64MiB or 1.5GB or default" in refused.err
