from pathlib import Path

import msgspec
import pytest

from aios.abi.contexts import SnapshotInfo, WindowPolicy
from aios.abi.types import Message, Role, ToolSpec
from aios.errors import Conflict, DiskFailed, NotFound, ResourceExhausted, SnapshotIncompatible
from aios.kernel.context.snapshots import Saved, Snapshots
from aios.kernel.context.transcript import Rewrite, Transcript, extended
from aios.kernel.context.window import rewritten

ITEMS = extended((), [Message(Role.USER, "hi"), Message(Role.ASSISTANT, "hello")], is_pinned=True)
SAVED = Saved(
    (ToolSpec("clock"),),
    WindowPolicy.PAGE_TO_MEMORY,
    rewritten(Transcript(ITEMS, (), (ITEMS,)), (), Rewrite("x", 2, n_tokens_before=3)),
    7,
)


def info(name: str = "a", owner: str = "owner") -> SnapshotInfo:
    return SnapshotInfo(name, owner, "m", "f", 2, 0, 1.5)


def test_what_was_written_is_read_back_whole(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path / "contexts", 10)
    written = shelf.write(info(), SAVED, is_replacing=False)
    assert written.size_bytes > 0
    for reader in (shelf, Snapshots(tmp_path / "contexts", 10)):
        assert reader.read("owner", "a") == (written, SAVED)
        assert reader.list_all("owner") == [written]
    assert len(list((tmp_path / "contexts").rglob("*.*"))) == 1, "nothing is left beside it"


def test_names_belong_to_owners_and_are_taken_once(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path, 10)
    shelf.write(info(), SAVED, is_replacing=False)
    shelf.write(info(owner="../eve"), SAVED, is_replacing=False)
    other = Saved((), WindowPolicy.NONE, Transcript(ITEMS), 0)
    with pytest.raises(Conflict, match="already"):
        shelf.write(info(), other, is_replacing=False)
    shelf.write(info(), other, is_replacing=True)
    assert shelf.read("owner", "a")[1] == other
    assert shelf.read("../eve", "a")[1] == SAVED
    shelf.remove("owner", "a")
    with pytest.raises(NotFound):
        shelf.read("owner", "a")
    with pytest.raises(NotFound):
        shelf.remove("owner", "a")
    assert [each.name for each in shelf.list_all("../eve")] == ["a"]


def test_the_same_text_under_the_same_name_is_the_snapshot_that_is_there(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path, 1)
    written = shelf.write(info(), SAVED, is_replacing=False)
    assert shelf.write(info(), SAVED, is_replacing=False) == written, (
        "a kernel was killed behind it"
    )
    with pytest.raises(Conflict, match="already"):
        shelf.write(msgspec.structs.replace(info(), model="b"), SAVED, is_replacing=False)


def test_an_owner_has_so_many_and_no_more(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path, 2)
    for name in ("a", "b"):
        shelf.write(info(name), SAVED, is_replacing=False)
    with pytest.raises(ResourceExhausted, match="has 2 snapshots"):
        shelf.write(info("c"), SAVED, is_replacing=False)
    shelf.write(info("b"), SAVED, is_replacing=True)


def test_a_damaged_file_is_never_trusted(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path, 10)
    shelf.write(info(), SAVED, is_replacing=False)
    [path] = tmp_path.rglob("*.context")
    whole = path.read_bytes()
    for i in range(0, len(whole), 7):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(SnapshotIncompatible):
            shelf.read("owner", "a")
        shelf.list_all("owner")
        path.write_bytes(whole[:i])
        with pytest.raises(SnapshotIncompatible):
            shelf.read("owner", "a")
        shelf.list_all("owner")


def test_a_file_that_the_disk_does_not_give_is_told(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path, 10)
    shelf.write(info(), SAVED, is_replacing=False)
    (file,) = tmp_path.rglob("*.context")
    file.unlink()
    file.mkdir()  # whoever is root may read whatever has no leave
    with pytest.raises(DiskFailed, match="'a' cannot be read: Is a directory"):
        shelf.read("owner", "a")


def test_a_path_that_cannot_be_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceExhausted, match="cannot be written"):
        Snapshots(tmp_path / "file", 10).write(info(), SAVED, is_replacing=True)


def test_what_was_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path / "contexts", 10)
    assert shelf.sweep() == 0, "there is no folder yet"
    shelf.write(info(".a.new"), SAVED, is_replacing=False)
    [path] = tmp_path.rglob("*.context")
    draft = path.with_name("..a.new.00.new")
    draft.write_bytes(b"half")
    assert shelf.sweep() == 1
    assert not draft.exists()
    assert shelf.read("owner", ".a.new")[1] == SAVED


def test_a_pin_is_wanted_as_long_as_its_snapshot_is_there(tmp_path: Path) -> None:
    shelf = Snapshots(tmp_path, 10)
    names = [shelf.pin_name("owner", "a"), shelf.pin_name("owner", "b"), shelf.pin_name("eve", "a")]
    assert len(set(names)) == 3
    shelf.write(info(), SAVED, is_replacing=False)
    assert [shelf.is_wanted(name) for name in names] == [True, False, False]
    assert shelf.is_wanted("a suspended generation"), "that is for others to say"
    shelf.remove("owner", "a")
    assert not shelf.is_wanted(names[0])
