import fcntl
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.server.serving import serving

from aios.errors import KernelUnreachable
from aios.sdk.discovery import (
    ADDRESS_FILE,
    LOCK_FILE,
    KernelAddress,
    find_kernel,
    holds,
    is_locked,
    read_address,
    read_token,
    unix_path_of,
)

pytestmark = pytest.mark.anyio


def leave_address(home: Path, os_pid: int) -> None:
    (home / "run").mkdir(parents=True)
    address = KernelAddress(os_pid, ("unix:///nowhere",), False, 0.0)
    (home / "run" / ADDRESS_FILE).write_bytes(msgspec.json.encode(address))


async def test_a_running_kernel_is_found_with_its_addresses() -> None:
    async with serving() as served:
        found = find_kernel(served.home.root)
        assert found is not None
        assert found.os_pid == os.getpid()
        assert found.unix_path == served.path
        assert found.http_url == served.url
        assert not found.embedded
        assert read_token(served.home.root) == served.token
    assert find_kernel(served.home.root) is None


def test_no_home_is_no_kernel(tmp_path: Path) -> None:
    assert find_kernel(tmp_path / "absent") is None


def test_what_a_dead_kernel_left_is_not_believed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave_address(tmp_path, dead.pid)
    (tmp_path / "run" / LOCK_FILE).touch()
    assert find_kernel(tmp_path) is None


def test_a_process_that_took_over_the_number_of_a_dead_kernel_is_no_kernel(tmp_path: Path) -> None:
    leave_address(tmp_path, os.getpid())
    assert find_kernel(tmp_path) is None, "nobody holds the lock"
    (tmp_path / "run" / LOCK_FILE).touch()
    assert find_kernel(tmp_path) is None, "nobody holds the lock"


def test_a_kernel_that_ends_has_its_home_until_it_lets_go_of_the_lock(tmp_path: Path) -> None:
    leave_address(tmp_path, os.getpid())
    ending = read_address(tmp_path / "run")
    assert ending is not None
    with (tmp_path / "run" / LOCK_FILE).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert holds(ending, tmp_path)
        (tmp_path / "run" / ADDRESS_FILE).unlink()  # it answers nobody any more
        assert find_kernel(tmp_path) is None
        assert holds(ending, tmp_path)
        next_one = msgspec.structs.replace(ending, os_pid=os.getppid())
        (tmp_path / "run" / ADDRESS_FILE).write_bytes(msgspec.json.encode(next_one))
        assert not holds(ending, tmp_path)
        (tmp_path / "run" / ADDRESS_FILE).unlink()
    assert not holds(ending, tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"os_pid":"x"}', b"\xff"])
def test_a_broken_address_file_is_no_kernel(tmp_path: Path, content: bytes) -> None:
    leave_address(tmp_path, os.getpid())
    (tmp_path / "run" / ADDRESS_FILE).write_bytes(content)
    assert find_kernel(tmp_path) is None


def test_an_absent_lock_is_not_held(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "lock")


def test_an_absent_token_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(KernelUnreachable, match="token") as raised:
        read_token(tmp_path)
    assert "aios serve" in raised.value.hint


def test_only_unix_urls_have_a_path() -> None:
    assert unix_path_of("unix:///a/b") == "/a/b"
    assert unix_path_of("http://127.0.0.1:1") is None
