"""`aios timer` and `aios run --at|--every` with a daemon of their own."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios


@pytest.fixture
def daemon(aios: Aios, home: Path, monkeypatch: pytest.MonkeyPatch) -> Aios:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "none")
    monkeypatch.setenv("AIOS_SERVER_PORT", "0")
    monkeypatch.setenv("TZ", "UTC")
    assert home.exists()
    return aios


def test_a_timer_is_set_listed_run_and_removed(daemon: Aios, programs: Path) -> None:
    aios = daemon
    try:
        ran = aios("run", "--at", "+1h", programs / "hello", "a")
        assert ran.code == 0, ran.err
        assert ran.out.startswith("timer 1, next at ")
        assert "started `aios serve`" in ran.err
        added = aios(
            "run", "--every", "30 6 * * MON-FRI", "--zone", "Europe/Berlin", "--missed", "skip",
            "--json", programs / "hello",
        ).rows()[0]  # fmt: skip
        assert (added["id"], added["zone"], added["missed"]) == (2, "Europe/Berlin", "skip")
        rows = aios("timer", "ls", "--json").rows()
        assert {row["id"] for row in rows} == {1, 2}  # by the time of day either is first
        listed = aios("timer", "ls").out
        assert "30 6 * * MON-FRI" in listed
        assert str(programs / "hello") in listed
        pid = aios("timer", "run", "1").out.split()[0]
        assert aios("wait", pid).out == "hello from hello\n"
        assert aios("timer", "rm", "2").out.startswith("removed timer 2 of ")
        assert aios("timer", "rm", "2").code == 4
        assert aios("run", "--at", "+1h", "--every", "* * * * *", programs / "hello").code == 2
        assert aios("run", "--every", "often", programs / "hello").code == 2
        assert [row["id"] for row in aios("timer", "ls", "--json").rows()] == [1]
    finally:
        aios("shutdown")
