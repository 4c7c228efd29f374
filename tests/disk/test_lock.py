from pathlib import Path

import pytest

from aios.disk.lock import FileLock
from aios.errors import Conflict, DiskFailed


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    lock = FileLock.acquire(tmp_path / "lock")
    with pytest.raises(Conflict, match="another kernel"):
        FileLock.acquire(tmp_path / "lock")
    lock.release()
    lock.release()
    FileLock.acquire(tmp_path / "lock").release()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match="cannot be made"):
        FileLock.acquire(tmp_path / "none" / "lock")
