import errno
import os
import shutil
import socket
import stat
from pathlib import Path

import anyio
import pytest
from tests.server.serving import short_folder

from aios.config import Home
from aios.errors import ConfigError, Conflict
from aios.sdk.discovery import KernelAddress, find_kernel, is_locked, read_address
from aios.server.claim import claim_home, owner_token, socket_path

pytestmark = pytest.mark.anyio


def address(url: str = "unix:///x") -> KernelAddress:
    return KernelAddress(os.getpid(), (url,), False, 1_700_000_000.0)


async def test_a_home_is_made_private_and_given_back_clean(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    async with claim_home(home) as claim:
        claim.publish(address())
        assert stat.S_IMODE(home.run.stat().st_mode) == 0o700
        assert stat.S_IMODE(home.token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE((home.run / "kernel.json").stat().st_mode) == 0o600
        assert find_kernel(home.root) == address()
        assert sorted(path.name for path in home.run.iterdir()) == ["kernel.json", "kernel.lock"]
    assert find_kernel(home.root) is None
    assert [path.name for path in home.run.iterdir()] == ["kernel.lock"]


async def test_only_one_kernel_holds_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with claim_home(home) as first:
        with pytest.raises(Conflict, match="starting"):
            async with claim_home(home):
                pass
        first.publish(address("http://127.0.0.1:8411"))
        with pytest.raises(Conflict) as taken:
            async with claim_home(home):
                pass
        assert f"pid {os.getpid()}" in taken.value.message
        assert "http://127.0.0.1:8411" in taken.value.message
        assert "2023-11-1" in taken.value.message
        assert taken.value.hint
        assert find_kernel(tmp_path) is not None, "the loser took nothing down"
    async with claim_home(home):
        pass


async def test_looking_at_the_lock_does_not_keep_a_kernel_from_starting(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with claim_home(home):
        pass
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def look() -> None:
                while True:
                    await anyio.to_thread.run_sync(is_locked, home.run / "kernel.lock")

            for _ in range(3):
                tasks.start_soon(look)
            for _ in range(30):
                async with claim_home(home):
                    await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()


async def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    async with claim_home(Home(tmp_path)):
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


async def test_a_home_that_is_a_file_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        async with claim_home(Home(tmp_path / "home")):
            pass


async def test_a_full_disk_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="No space left") as caught:
        owner_token(Home(tmp_path))
    assert "free space" in caught.value.hint
    home = Home(tmp_path / "home")
    home.root.mkdir()
    home.token_file.write_text("aios_a-token-of-some-length-that-is-long-enough")
    home.token_file.chmod(0o600)
    async with claim_home(home) as claim:
        with pytest.raises(ConfigError, match="No space left"):
            claim.publish(address())
    assert [path.name for path in home.run.iterdir()] == ["kernel.lock"]


async def test_what_a_killed_kernel_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.run.mkdir()
    drafts = [tmp_path / ".token.0011223344556677", home.run / ".kernel.json.0011223344556677"]
    others = [tmp_path / ".notes", home.run / ".kernel"]
    for path in (*drafts, *others):
        path.write_text("half")
    async with claim_home(home):
        assert not any(draft.exists() for draft in drafts)
        assert all(other.exists() for other in others)


async def test_what_a_killed_kernel_left_is_removed() -> None:
    with short_folder() as folder, short_folder() as elsewhere:
        home = Home(folder)
        async with claim_home(home) as claim:
            claim.publish(address(f"unix://{elsewhere}/aios-x/kernel.sock"))
            left = (home.run / "kernel.json").read_bytes()
        (elsewhere / "aios-x").mkdir()
        (elsewhere / "aios-x" / "kernel.sock").touch()
        (home.run / "kernel.json").write_bytes(left)
        async with claim_home(home):
            assert read_address(home.run) is None
            assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("is_short", [False, True])
async def test_a_copied_home_leaves_the_kernel_of_the_original_alone(is_short: bool) -> None:
    with short_folder() as folder:
        home = Home(folder / ("x" * 100 if is_short else "original"))
        async with claim_home(home) as claim:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(claim.socket))
                listener.listen()
                claim.publish(address(f"unix://{claim.socket}"))
                before = sorted(home.run.iterdir())
                copy = Home(folder / "copy")
                copy.run.mkdir(parents=True)
                shutil.copy(home.run / "kernel.json", copy.run)
                async with claim_home(copy):
                    assert not (copy.run / "kernel.json").exists()
                assert claim.socket.exists()
                assert sorted(home.run.iterdir()) == before
        assert not claim.socket.exists()
        assert is_short != claim.socket.parent.exists()


def test_the_token_is_made_once_and_is_long(tmp_path: Path) -> None:
    home = Home(tmp_path)
    token = owner_token(home)
    assert token.startswith("aios_")
    assert len(token) >= 43, "256 bits in base64"
    assert owner_token(home) == token
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    home = Home(tmp_path)
    token = owner_token(home)
    home.token_file.chmod(mode)
    with pytest.raises(ConfigError, match="open to others") as refused:
        owner_token(home)
    assert f"chmod 600 {home.token_file}" in refused.value.hint
    assert token not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 50, b"a\nb" * 40])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    home = Home(tmp_path)
    owner_token(home)
    home.token_file.write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        owner_token(home)


def test_a_short_path_is_used_as_it_is() -> None:
    assert socket_path(Path("/a/run")) == Path("/a/run/kernel.sock")


@pytest.mark.parametrize("base", ["short", "long", "absent"])
def test_a_long_path_is_replaced_by_a_private_short_one(
    monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    with short_folder() as folder:
        runtime = {"short": folder, "long": folder / ("x" * 90), "absent": folder / "no"}[base]
        if base == "long":
            runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        path = socket_path(Path("/home") / ("x" * 120) / "run")
        try:
            assert len(str(path)) <= 107
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert (path.parent.parent == folder) == (base == "short")
        finally:
            path.parent.rmdir()
