from errno import EIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aios.kernel.context.files import HEAD_BYTES, MAGIC, PageFiles, open_file

PAGE_BYTES = 256


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def rows(number: int) -> NDArray[np.uint8]:
    return np.full(PAGE_BYTES, number % 256, np.uint8)


def files_in(folder: Path, *, n_pages: int = 100) -> PageFiles:
    return PageFiles(
        folder, page_bytes=PAGE_BYTES, budget_bytes=n_pages * (PAGE_BYTES + HEAD_BYTES)
    )


def test_a_page_comes_back_as_it_was_also_to_a_later_store(tmp_path: Path) -> None:
    assert files_in(tmp_path).write(key(1), key(9), rows(7))
    later = files_in(tmp_path)
    out = rows(0)
    assert key(1) in later
    assert later.read(key(1), out)
    assert out.tolist() == rows(7).tolist()


def test_the_oldest_pages_go_when_the_budget_is_used_up(tmp_path: Path) -> None:
    files = files_in(tmp_path, n_pages=3)
    for number in range(3):
        files.write(key(number), None, rows(number))
    files.read(key(0), rows(0))
    files.write(key(3), None, rows(3))
    assert [number for number in range(4) if key(number) in files] == [0, 2, 3]
    assert len(list(tmp_path.glob("*/*.page"))) == 3


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, PAGE_BYTES + HEAD_BYTES - 1), flip=st.integers(1, 255))
def test_an_altered_file_is_never_trusted(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("pages")
    files = files_in(folder)
    files.write(key(1), key(2), rows(5))
    (path,) = folder.glob("*/*.page")
    data = bytearray(path.read_bytes())
    data[where] ^= flip
    path.write_bytes(data)
    out = rows(0)
    is_read = files.read(key(1), out)
    parent_only = len(MAGIC) + 16 <= where < len(MAGIC) + 32
    assert is_read == parent_only, "only the note of the parent is not checked"
    if not is_read:
        assert key(1) not in files
        assert not path.exists()
        assert files.n_damaged == 1


@pytest.mark.parametrize("size", [0, 10, HEAD_BYTES, PAGE_BYTES, PAGE_BYTES + HEAD_BYTES + 1])
def test_a_torn_file_is_never_trusted(tmp_path: Path, size: int) -> None:
    files = files_in(tmp_path)
    files.write(key(1), None, rows(5))
    (path,) = tmp_path.glob("*/*.page")
    path.write_bytes((path.read_bytes() + b"x")[:size])
    assert not files.read(key(1), rows(0))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    assert key(1) not in files_in(tmp_path)


def test_a_folder_that_holds_more_than_its_budget_shrinks_to_it_and_keeps_what_is_pinned(
    tmp_path: Path,
) -> None:
    many = files_in(tmp_path, n_pages=100)
    keys = [key(number) for number in range(40)]
    for each in keys:
        assert many.write(each, None, rows(1))
    many.pins.put("snapshot:a", keys[:6])
    assert many.pins.write("snapshot:a")
    few = files_in(tmp_path, n_pages=10)
    assert len(few) == 10
    assert all(each in few for each in keys[:6]), "pinned, though the oldest"
    fewer = files_in(tmp_path, n_pages=3)
    assert len(fewer) == 6, "no budget removes what is pinned"
    assert not fewer.write(key(99), None, rows(1)), "and there is room for nothing else"
    assert len(list(tmp_path.glob("*/*.page"))) == 6


def test_what_was_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "00"
    folder.mkdir()
    (folder / "abc.part").write_bytes(b"x")
    files_in(tmp_path)
    assert list(folder.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    files = files_in(blocked)
    assert not files.write(key(1), None, rows(1))
    assert files.n_failed_writes == 1
    assert not files.read(key(1), rows(0))


def test_a_page_that_cannot_be_read_leaves_no_file_that_nobody_counts(tmp_path: Path) -> None:
    files_in(tmp_path).write(key(1), None, rows(5))

    def refuse(path: Path, mode: str) -> BinaryIO:
        if mode == "rb":
            raise OSError(EIO, "Input/output error")
        return open_file(path, mode)

    budget_bytes = 2 * (PAGE_BYTES + HEAD_BYTES)
    files = PageFiles(tmp_path, page_bytes=PAGE_BYTES, budget_bytes=budget_bytes, open_file=refuse)
    for number in range(2, 6):
        assert not files.read(key(number - 1), rows(0))
        assert files.write(key(number), None, rows(number))
    assert len(files) == len(list(tmp_path.glob("*/*.page"))) == 1
