"""`aios doctor`: each check with what is well and what is not."""

import os
import socket
from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served, gguf, serving

from aios.cli import checks
from aios.cli.checks import CHECKS


def findings(aios: Aios, *, code: int = 0) -> dict[str, dict[str, object]]:
    """What it found, by check."""
    ran = aios("doctor", "--json")
    assert ran.code == code, ran.out
    return {str(row["check"]): row for row in ran.rows()}


def test_a_good_machine_has_nothing_to_mend(aios: Aios) -> None:
    found = findings(aios)
    assert {row["level"] for row in found.values()} <= {"ok", "warn"}
    assert found["engine"]["found"] == "scripted: answers are made up"
    assert {"python", "config", "home", "token", "socket", "port", "memory", "kernel"} <= set(found)


def test_a_home_that_may_not_be_looked_into_keeps_nobody_from_the_other_checks(
    aios: Aios, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    stat = os.stat

    def refuse(
        path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        if str(path).startswith(str(home)):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", refuse)
    found = findings(aios)
    assert {"python", "config", "home", "token", "socket", "port", "memory", "kernel"} <= set(found)


def test_rows_are_aligned_and_say_what_to_do(aios: Aios) -> None:
    lines = aios("doctor").out.splitlines()
    assert lines[0].startswith("ok    python    3.")
    assert any(line.strip().startswith("mend: ") for line in lines)


def test_a_missing_model_fails_with_the_command_that_fetches_it(
    aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "llama")
    found = findings(aios, code=1)
    assert found["model"]["level"] == "fail"
    assert "aios pull" in str(found["model"]["mend"])


@pytest.mark.parametrize(
    ("variables", "level"),
    [
        ({"AIOS_ENGINE_KIND": "none"}, "warn"),
        ({"AIOS_ENGINE_KIND": "openai"}, "fail"),
        ({"AIOS_ENGINE_BASE_URL": "http://localhost:1/v1", "AIOS_ENGINE_KIND": "auto"}, "warn"),
        (
            {
                "AIOS_ENGINE_BASE_URL": "http://localhost:1/v1",
                "AIOS_ENGINE_KIND": "openai",
                "OPENAI_API_KEY": "secret-key",
            },
            "ok",
        ),
    ],
)
def test_each_kind_of_engine_is_looked_at(
    aios: Aios, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], level: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = aios("doctor", "--json")
    found = {row["check"]: row for row in ran.rows()}
    assert found["engine"]["level"] == level
    assert ran.code == (1 if level == "fail" else 0)
    assert "secret-key" not in ran.out + ran.err


def test_a_bad_configuration_fails_and_the_other_checks_still_run(
    aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_SERVER_PORT", "-1")
    ran = aios("doctor", "--json")
    assert ran.code == 1
    assert ran.rows()[0]["level"] == "fail"
    assert "AIOS_SERVER_PORT" in str(ran.rows()[0]["found"])
    assert len(ran.rows()) > 5


def test_a_misspelt_variable_warns_and_names_the_one_that_was_meant(
    aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "env" not in findings(aios)
    monkeypatch.setenv("AIOS_ENGINE_N_SLOT", "4")
    monkeypatch.setenv("AIOS_ZZZ", "secret-value")
    found = findings(aios)["env"]
    assert found["level"] == "warn"
    assert "call AIOS_ENGINE_N_SLOT AIOS_ENGINE_N_SLOTS; unset AIOS_ZZZ" in str(found["mend"])
    assert "secret-value" not in str(found)


def test_a_token_that_others_may_read_fails(aios: Aios, home: Path) -> None:
    token = home / "token"
    token.write_text("x" * 40)
    token.chmod(0o644)
    found = findings(aios, code=1)
    assert found["token"]["mend"] == f"chmod 600 {token}"
    token.chmod(0o600)
    assert findings(aios)["token"]["level"] == "ok"


def test_a_home_that_is_a_file_fails(
    aios: Aios, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIOS_HOME", str(tmp_path / "file"))
    assert findings(aios, code=1)["home"]["level"] == "fail"


def test_a_long_path_warns(aios: Aios, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_HOME", str(home / ("x" * 120)))
    assert findings(aios)["socket"]["level"] == "warn"


def test_a_port_that_another_program_has_warns(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("AIOS_SERVER_PORT", str(other.getsockname()[1]))
        assert findings(aios)["port"]["mend"] == "aios serve --port 0"


def test_a_kernel_that_runs_answers(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert f"pid {os.getpid()}, 2 processes" in str(findings(aios)["kernel"]["found"])


def test_the_port_of_our_own_kernel_is_no_trouble(
    home: Path, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home, http=True) as served:
        monkeypatch.setenv("AIOS_SERVER_PORT", served.kernel.urls[-1].rpartition(":")[2])
        assert "a kernel is running" in str(findings(aios)["port"]["found"])


def test_a_kernel_that_does_not_answer_fails(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_URL", "unix:///nowhere/kernel.sock")
    monkeypatch.setenv("AIOS_TOKEN", "x")
    found = findings(aios, code=1)["kernel"]
    assert found["level"] == "fail"
    assert found["mend"]


@pytest.mark.parametrize(
    ("limit", "check"), [("MIN_FREE_MEMORY_BYTES", "memory"), ("MIN_FREE_DISK_BYTES", "home")]
)
def test_too_little_room_warns(
    aios: Aios, monkeypatch: pytest.MonkeyPatch, limit: str, check: str
) -> None:
    monkeypatch.setattr(checks, limit, 1 << 60)
    assert findings(aios)[check]["level"] == "warn"


def test_an_old_python_fails(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OLDEST_PYTHON", (4, 0))
    assert findings(aios, code=1)["python"]["level"] == "fail"


def test_without_its_packages_the_engine_fails_and_a_compiler_is_looked_for(
    aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "llama")
    monkeypatch.setattr(checks, "LOCAL_PACKAGES", ("no_such_package",))
    monkeypatch.setattr(checks, "COMPILERS", ("true",))
    found = findings(aios, code=1)
    assert "No module named 'no_such_package'" in str(found["engine"]["found"])
    assert "aios-kernel[local]" in str(found["engine"]["mend"])
    assert found["compiler"]["level"] == "ok"
    monkeypatch.setattr(checks, "COMPILERS", ("no-such-compiler",))
    assert findings(aios, code=1)["compiler"]["level"] == "fail"


def test_a_model_that_is_whole_is_ok(
    aios: Aios, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "llama")
    monkeypatch.setattr(checks, "LOCAL_PACKAGES", ("json",))
    monkeypatch.setenv("AIOS_ENGINE_MODEL", str(gguf(tmp_path / "tiny.gguf")))
    found = findings(aios)
    assert found["engine"]["level"] == "ok"
    assert str(found["model"]["found"]).startswith("tiny, ")


def test_each_check_says_what_it_looks_at() -> None:
    assert all(check.__doc__ for check in CHECKS)


def test_a_kernel_without_a_journal_is_warned_of(
    aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "journal" not in findings(aios)
    monkeypatch.setenv("AIOS_JOURNAL_IS_ON", "false")
    found = findings(aios)["journal"]
    assert (found["level"], found["mend"]) == ("warn", "set journal.is_on to true")
