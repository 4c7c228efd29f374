import os
from pathlib import Path

import pytest

from aios.plainfile import read_plain


def test_the_beginning_of_a_plain_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"0123456789")
    assert read_plain(file, 4) == b"0123"
    assert read_plain(file, 100) == b"0123456789"


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        assert read_plain(path, 4) is None


def test_a_link_is_followed_only_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    assert read_plain(tmp_path / "link", 4) == b"a"
    with pytest.raises(OSError, match="link"):
        read_plain(tmp_path / "link", 4, follows_link=False)
