"""Which kernel a command speaks to."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served, Start, serving

from aios.cli.link import find_running
from aios.configload import load


def test_the_kernel_of_the_home_is_found_while_it_runs(home: Path) -> None:
    assert find_running(load().home) is None
    with serving(home) as served:
        found = find_running(load().home)
        assert found is not None
        assert (found.url, found.token) == (served.kernel.urls[0], served.kernel.owner_token)
    assert find_running(load().home) is None


def test_a_kernel_that_is_named_is_used_over_http_too(
    home: Path, aios: Aios, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home, http=True) as served:
        monkeypatch.setenv("AIOS_URL", served.kernel.urls[-1])
        monkeypatch.setenv("AIOS_TOKEN", served.kernel.owner_token)
        assert aios("run", programs / "hello").out.endswith("hello from hello\n")
        assert "in " in aios("logs", "hello").out
        assert aios("chat", "Name a sea.").out.startswith("You said")
        assert [row["name"] for row in aios("ps", "--all", "--json").rows()][:2] == [
            "init",
            "hello",
        ]


@pytest.mark.parametrize("url", ["unix:///nowhere/kernel.sock", "http://127.0.0.1:1", "nonsense"])
def test_a_kernel_that_is_named_and_not_there_is_no_reason_to_bring_an_own_one(
    home: Path, aios: Aios, programs: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AIOS_URL", url)
    monkeypatch.setenv("AIOS_TOKEN", "aios_x")
    for words in (["ps"], ["run", programs / "hello"], ["chat", "hi"]):
        ran = aios(*words)
        assert ran.code == 3, ran
        assert "aios_x" not in ran.err
    assert not (home / "run").exists()


def test_what_a_killed_kernel_left_behind_is_in_nobodys_way(
    start: Start, aios: Aios, home: Path, programs: Path
) -> None:
    daemon = start("serve")
    assert daemon.line().startswith("serving")
    daemon.process.kill()
    daemon.end()
    assert (home / "run" / "kernel.json").exists()
    assert aios("ps").code == 3
    assert start("run", programs / "hello").end().code == 0


def test_a_program_sees_what_its_token_may_see(served: Served, aios: Aios, programs: Path) -> None:
    served.admit("stranger")
    (programs / "hello" / "main.py").write_text(
        "import sys\nfrom aios.cli.main import main\nsys.exit(main(['ps', '--json']))\n"
    )
    ran = aios("run", programs / "hello")
    assert ran.code == 0
    assert [row["name"] for row in ran.rows()] == ["hello"]
