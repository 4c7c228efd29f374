import socket
from pathlib import Path

import pytest

from aios.errors import ProgramFailed
from aios.kernel.sandbox import apart
from aios.kernel.sandbox.apart import check_apart, check_python, key_places, state_of
from aios.kernel.sandbox.profile import Profile

FILES = (
    "token",
    "secrets.json",
    "aios.db",
    "aios.db-wal",
    "env.key",
    "run/kernel.json",
    "logs/7.log",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in (
        *FILES,
        "policies/grants.json",
        "tools/mine.toml",
        "models/small.gguf",
        "programs/mine/main.py",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    (tmp_path / "work").mkdir()
    return home


def check(home: Path, profile: Profile) -> None:
    check_apart(profile, state=state_of(home), keys=(), cwd=home.parent / "work")


@pytest.mark.parametrize("name", [*FILES, "run", "logs", "policies", "policies/grants.json"])
def test_no_state_is_given_to_read_by_its_name(home: Path, name: str) -> None:
    with pytest.raises(ProgramFailed, match="keeps its state"):
        check(home, Profile(readable=(home / name,)))


@pytest.mark.parametrize("name", [*FILES, "tools/mine.toml", "models/small.gguf"])
def test_no_state_is_given_to_change(home: Path, name: str) -> None:
    with pytest.raises(ProgramFailed, match="keeps its state"):
        check(home, Profile(writable=(home / name,)))


@pytest.mark.parametrize("name", ["tools/mine.toml", "models/small.gguf", "programs/mine"])
def test_programs_tools_and_models_in_the_home_may_be_read(home: Path, name: str) -> None:
    check(home, Profile(readable=(home / name,)))


def test_the_socket_of_the_kernel_may_be_spoken_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "run")  # a path that is not too long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("kernel.sock")
        check(home, Profile(readable=(home / "run" / "kernel.sock",)))


def test_state_to_which_a_symlink_leads_is_state(home: Path, tmp_path: Path) -> None:
    for name in ("blobs", "aios.db-shm"):
        (home / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "blobs").mkdir(parents=True)
    (tmp_path / "disk" / "aios.db-shm").write_text("x")
    state = state_of(home)
    assert {path.name for path in state.elsewhere} == {"blobs", "aios.db-shm"}
    for path in state.elsewhere:
        with pytest.raises(ProgramFailed, match="keeps its state"):
            check(home, Profile(readable=(path,)))
    check(home, Profile(readable=(tmp_path / "disk",)))  # these are hidden in it


def test_keys_are_known_by_their_real_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("real/.ssh", "vault"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "real" / ".aws").symlink_to(tmp_path / "vault")
    (tmp_path / "me").symlink_to(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert set(key_places()) == {tmp_path / "real" / ".ssh", tmp_path / "vault"}


def test_a_python_that_was_exchanged_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "python3"
    link.symlink_to("python3.11")
    monkeypatch.setattr(apart, "python_links", lambda: {link: Path("python3.11")})
    check_python()
    link.unlink()
    for make in (lambda: None, lambda: link.symlink_to("evil"), lambda: link.write_text("evil")):
        link.unlink(missing_ok=True)
        make()
        with pytest.raises(ProgramFailed, match="led to the Python of this kernel"):
            check_python()
