import os
from pathlib import Path

import anyio
import pytest

from aios.disk.inotify import (
    CLOSE_WRITE,
    CREATE,
    DELETE,
    IGNORED,
    IS_FOLDER,
    Inotify,
    parse_notices,
)

pytestmark = pytest.mark.anyio


async def test_changes_in_a_watched_folder_are_told_with_their_names(tmp_path: Path) -> None:
    queue = Inotify()
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    watch = queue.add(folder)
    assert queue.add(folder) == watch
    assert queue.read_nowait() == []
    (tmp_path / "a").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").unlink()
    with anyio.fail_after(30):
        await queue.wait()
    told = [(each.name, each.mask) for each in queue.read_nowait() if each.watch == watch]
    assert told == [
        (b"a", CREATE),
        (b"a", CLOSE_WRITE),
        (b"sub", CREATE | IS_FOLDER),
        (b"a", DELETE),
    ]
    queue.remove(watch)
    assert [each.mask for each in queue.read_nowait()] == [IGNORED]
    os.close(folder)
    queue.close()
    queue.close()


async def test_who_makes_changes_without_end_keeps_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Inotify()
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    queue.add(folder)
    read, n_reads = os.read, 0

    def read_and_change(descriptor: int, n_bytes: int) -> bytes:
        nonlocal n_reads
        data = read(descriptor, n_bytes)
        n_reads += 1
        if n_reads < 50:
            (tmp_path / f"during-{n_reads}").mkdir()
        return data

    monkeypatch.setattr("aios.disk.inotify.os.read", read_and_change)
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    assert [each.name for each in queue.read_nowait()] == [b"0", b"1", b"2"]
    assert [each.name for each in queue.read_nowait()] == [b"during-1"]
    assert n_reads == 2
    os.close(folder)
    queue.close()


async def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    queue = Inotify()
    with (tmp_path / "a").open() as file, pytest.raises(NotADirectoryError):
        queue.add(file.fileno())
    queue.close()


def test_notices_are_cut_where_their_lengths_say() -> None:
    data = b"\1\0\0\0\x08\0\0\0\0\0\0\0\4\0\0\0abc\0" + b"\xff\xff\xff\xff\0\x40\0\0" + bytes(8)
    first, second = parse_notices(data)
    assert (first.watch, first.mask, first.name) == (1, CLOSE_WRITE, b"abc")
    assert (second.watch, second.mask, second.name) == (-1, 0x4000, b"")
