import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aios.disk.folder import DRAFT_PREFIX, Folder, Kind, Stamp, read_pieces
from aios.errors import AccessDenied, AiosError, Conflict, NotFound


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return tmp_path / "root"


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    opened = Folder.open(root)
    yield opened
    opened.close()


def parts(path: str) -> list[bytes]:
    return path.encode().split(b"/")


def stamp(folder: Folder, path: str) -> Stamp:
    item = folder.find(parts(path))
    assert item is not None
    assert item.stamp is not None
    return item.stamp


def content(folder: Folder, path: str) -> bytes:
    with folder.open_file(parts(path)) as (descriptor, _):
        return b"".join(read_pieces(descriptor))


def test_a_file_is_replaced_whole_and_folders_are_made(folder: Folder, root: Path) -> None:
    first = folder.replace(parts("a/b/c"), [b"one", b"two"], None)
    assert content(folder, "a/b/c") == b"onetwo"
    assert stamp(folder, "a/b/c") == first
    second = folder.replace(parts("a/b/c"), [b"three"], first)
    with pytest.raises(Conflict):
        folder.replace(parts("a/b/c"), [b"x"], first)
    with pytest.raises(Conflict):
        folder.replace(parts("a/b/c"), [b"x"], None)
    folder.remove(parts("a/b/c"), second)
    assert list(root.iterdir()) == [], "neither the file nor a draft nor an empty folder is left"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(folder: Folder, root: Path) -> None:
    old = folder.replace([b"a"], [b"old"], None)

    def failing() -> Iterator[bytes]:
        yield b"new"
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        folder.replace([b"a"], failing(), old)
    assert [each.name for each in root.iterdir()] == ["a"]
    assert (root / "a").read_bytes() == b"old"


def test_who_changes_the_file_while_it_is_written_keeps_his(folder: Folder, root: Path) -> None:
    old = folder.replace([b"a"], [b"old"], None)

    def racing() -> Iterator[bytes]:
        (root / "a").write_text("theirs")
        yield b"new"

    with pytest.raises(Conflict):
        folder.replace([b"a"], racing(), old)
    assert (root / "a").read_text() == "theirs"


def test_what_is_no_plain_file_is_neither_read_nor_replaced(
    folder: Folder, root: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "outside" / "secret"
    (root / "link").symlink_to(secret)
    (root / "dangling").symlink_to(tmp_path / "outside" / "new")
    (root / "up").symlink_to("..")
    os.link(secret, root / "hard")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(root / "socket"))
    for name in ("link", "dangling", "up", "hard", "pipe", "socket"):
        item = folder.find([name.encode()])
        assert item is not None
        assert item.kind is Kind.OTHER
        with pytest.raises(AccessDenied):
            content(folder, name)
        with pytest.raises(AccessDenied):
            folder.replace([name.encode()], [b"pwned"], None)
        with pytest.raises(AccessDenied):
            folder.remove([name.encode()], Stamp(1, 1, 1, 1))
    for path in ("up/outside/secret", "link/x", "up/new/file"):
        with pytest.raises(AccessDenied):
            content(folder, path)
        with pytest.raises(AccessDenied):
            folder.replace(parts(path), [b"pwned"], None)
    assert secret.read_text() == "secret"
    assert list((tmp_path / "outside").iterdir()) == [secret]


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"/etc/passwd"])
def test_no_part_is_a_way(folder: Folder, name: bytes) -> None:
    for path in ([name], [name, b"x"], [b"x", name]):
        for attempt in (
            lambda path=path: folder.find(path),
            lambda path=path: folder.replace(path, [b""], None),
            lambda path=path: folder.items(path),
        ):
            try:
                assert attempt() is None
            except (AccessDenied, NotFound):
                continue
            except AiosError as error:  # pragma: no cover - a wrong error is a failure
                pytest.fail(f"{path}: {error}")


def test_another_file_system_inside_is_left_alone() -> None:
    """`/proc` is one on every Linux; it is looked at from the folder that it is mounted in."""
    machine = Folder.open(Path("/"))
    item = machine.find([b"proc"])
    assert item is not None
    assert item.kind is Kind.OTHER
    with pytest.raises(AccessDenied, match="another file system"):
        content(machine, "proc/self/environ")
    machine.close()


def test_drafts_of_a_crash_are_not_listed_and_are_removed(folder: Folder, root: Path) -> None:
    (root / (DRAFT_PREFIX.decode() + "0" * 16)).write_text("half")
    (root / (DRAFT_PREFIX.decode() + "mine")).write_text("not ours")
    assert [item.name for item in folder.items([])] == [DRAFT_PREFIX + b"mine"]
    assert folder.remove_drafts([]) == 1
    assert [each.name for each in root.iterdir()] == [DRAFT_PREFIX.decode() + "mine"]


def test_a_folder_that_was_removed_says_so(folder: Folder, root: Path) -> None:
    assert not folder.is_removed()
    root.rmdir()
    assert folder.is_removed()


def test_only_folders_that_may_be_entered_are_opened(root: Path) -> None:
    (root / "file").write_text("")
    for path in (root / "none", root / "file"):
        with pytest.raises(NotFound):
            Folder.open(path)


def test_a_folder_is_not_opened_over_a_link(root: Path, tmp_path: Path) -> None:
    (root / "sub").mkdir()
    (tmp_path / "link").symlink_to(root)
    for path in (tmp_path / "link", tmp_path / "link" / "sub"):
        with pytest.raises(NotFound, match="link is a symbolic link now"):
            Folder.open(path)
    Folder.open(root / "sub").close()


def test_a_stamp_of_a_file_that_was_read_too_soon_fits_by_the_rest() -> None:
    now = Stamp(1, 2, 3, 4)
    assert Stamp(1, 2, 3, 4).fits(now)
    assert Stamp(1, 2, 3, 0).fits(now)
    assert not Stamp(1, 2, 3, 5).fits(now)
    assert not Stamp(1, 2, 4, 0).fits(now)
    assert not Stamp(1, 2, 3, 0).fits(None)
