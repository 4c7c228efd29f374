import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aios.kernel.sandbox.scratch import (
    MAX_BASE_CHARS,
    Scratch,
    default_base,
    hidden_base,
    scratch_folder,
    sweep_folders,
)

MAKER = """
import sys
from pathlib import Path
from aios.kernel.sandbox.scratch import Scratch
scratch = Scratch("tool", Path(sys.argv[1]))
(scratch.path / "shut").mkdir(mode=0)
(scratch.path / "out").symlink_to(sys.argv[2])
print(scratch.path, flush=True)
sys.stdin.read()
"""


def test_a_folder_is_private_and_gone_after_the_block(tmp_path: Path) -> None:
    with scratch_folder("tool", tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "shut").mkdir(mode=0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_maker_left_is_swept_and_what_is_in_use_or_not_ours_stays(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    command = [sys.executable, "-c", MAKER, str(tmp_path), str(outside)]
    maker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    assert maker.stdout is not None
    left = Path(maker.stdout.readline().strip())
    other = tmp_path / "aios-other"
    other.mkdir()
    scratch = Scratch("tool", tmp_path)
    assert sweep_folders(tmp_path) == 0
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    assert left.exists()
    assert sweep_folders(tmp_path) == 1
    assert not left.exists()
    assert outside.stat().st_mode & 0o777 == 0o500, "a link is not followed"
    scratch.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aios-other", "outside"]


def test_one_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Path] = []

    def lock(descriptor: int, _: int) -> None:
        if not swept:
            swept.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            swept[0].rmdir()

    monkeypatch.setattr("aios.kernel.sandbox.scratch.fcntl.flock", lock)
    with scratch_folder("tool", tmp_path) as folder:
        assert folder.is_dir()
        assert folder != swept[0]


def test_below_a_long_path_no_socket_could_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * MAX_BASE_CHARS)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert len(str(default_base())) <= MAX_BASE_CHARS


def test_the_hidden_base_is_of_this_user_alone_or_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.sandbox.scratch.default_base", lambda: tmp_path)
    base = hidden_base()
    assert base.parent == tmp_path
    assert base.stat().st_mode & 0o777 == 0o700
    assert hidden_base() == base
    base.chmod(0o755)
    assert hidden_base() == tmp_path
    base.rmdir()
    base.symlink_to(tmp_path / "elsewhere")
    assert hidden_base() == tmp_path
