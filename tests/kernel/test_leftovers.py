import subprocess
import sys
from pathlib import Path

from aios.kernel.leftovers import code_hash, kill_leftover, os_start_of


def test_the_hash_is_of_the_code_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("a")
    (tmp_path / "agent.toml").write_text("b")
    before = code_hash(tmp_path)
    (tmp_path / "result.txt").write_text("what it works on")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.py").write_text("x")
    assert code_hash(tmp_path) == before
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tools.py").write_text("c")
    changed = code_hash(tmp_path)
    assert changed != before
    (tmp_path / "sub" / "tools.py").rename(tmp_path / "tools.py")
    assert code_hash(tmp_path) != changed
    assert code_hash(tmp_path / "nowhere") == code_hash(tmp_path / "not here either")


def test_no_more_is_read_than_counts(tmp_path: Path) -> None:
    with (tmp_path / "main.py").open("wb") as file:
        file.truncate(1 << 42)  # all holes; to read it would take all memory
    before = code_hash(tmp_path)
    with (tmp_path / "main.py").open("r+b") as file:
        file.write(b"x")
    assert code_hash(tmp_path) != before


def test_a_leftover_is_killed_and_a_stranger_with_its_pid_is_not() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        command, stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        start = os_start_of(child.pid)
        assert start > 0
        assert not kill_leftover(child.pid, start + 1)
        assert child.poll() is None
        assert kill_leftover(child.pid, start)
        assert child.wait(10) == -9
        assert not kill_leftover(child.pid, start)
    assert not kill_leftover(0, 0)
