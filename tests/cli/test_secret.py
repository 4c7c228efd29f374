"""aios secret: values go in by standard input and never come out."""

import os
import stat
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from tests.cli.conftest import Aios

CANARY = "canary-41c7d0aa93"


def run(home: Path, *args: str, given: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "AIOS_HOME": str(home)}
    command = [sys.executable, "-m", "aios.cli.main", "secret", *args]
    return subprocess.run(  # noqa: S603 - our own command
        command, input=given, env=env, capture_output=True, text=True, check=False
    )


def test_a_secret_is_set_listed_and_forgotten_and_never_shown(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = run(home, "set", "API_KEY", "--host", "api.example.com", given=f"{CANARY}\n")
    assert (done.returncode, CANARY in done.stdout + done.stderr) == (0, False)
    assert "aios-secret:API_KEY" in done.stdout
    file = home / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert CANARY in file.read_text()
    listed = run(home, "ls")
    assert "API_KEY" in listed.stdout
    assert "api.example.com" in listed.stdout
    assert CANARY not in listed.stdout
    assert run(home, "rm", "API_KEY").returncode == 0
    assert CANARY not in file.read_text()
    assert run(home, "rm", "API_KEY").returncode == 4


def test_what_is_no_secret_is_refused_without_repeating_it(tmp_path: Path) -> None:
    for name, host, given in (
        ("lower", "a.example", CANARY),
        ("A", "*", CANARY),
        ("A", "a.example", "short"),
        ("A", "a.example", f"{CANARY}\r\nX-Injected: 1\n"),
        ("A", "a.example", "x" * 9000),
    ):
        done = run(tmp_path, "set", name, "--host", host, given=given)
        assert done.returncode == 2
        assert given.split()[0] not in done.stderr
    (tmp_path / "secrets.json").write_text(f'{{"A": {{"value": "{CANARY}"')
    (tmp_path / "secrets.json").chmod(0o600)
    damaged = run(tmp_path, "ls")
    assert damaged.returncode
    assert CANARY not in damaged.stderr
    (tmp_path / "secrets.json").chmod(0o644)
    assert "others can read" in run(tmp_path, "ls").stderr


def test_what_is_not_utf_8_is_refused(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = TextIOWrapper(BytesIO(b"k\xff"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", piped)
    refused = aios("secret", "set", "KEY", "--host", "a.example")
    assert (refused.code, "UTF-8" in refused.err) == (2, True)
