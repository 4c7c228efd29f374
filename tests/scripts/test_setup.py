"""Setting up: when there is nothing to do, what is shown meanwhile, and what is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.scripts.loading import SCRIPTS, load_script

setup = load_script("setup")

PYPROJECT = """
[build-system]
requires = ["hatchling"]
[project]
name = "x"
dependencies = ["a>=1"]
[tool.ruff]
line-length = 100
"""


def make_venv(place: Path) -> None:
    """What `is_usable` looks at."""
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").touch()
    (place / "bin" / "pip").write_text(f"#!{place}/bin/python\n")


def test_settings_of_linters_do_not_lead_to_a_new_installation() -> None:
    again = setup.fingerprint(PYPROJECT.replace("100", "80"))
    assert again == setup.fingerprint(PYPROJECT)


def test_a_new_dependency_leads_to_a_new_installation() -> None:
    assert setup.fingerprint(PYPROJECT.replace("a>=1", "a>=2")) != setup.fingerprint(PYPROJECT)


@pytest.mark.parametrize(
    ("stamped", "wanted", "is_done"),
    [
        (["dev", "local"], {"local"}, True),
        (["dev", "local"], {"dev", "local"}, True),
        (["local"], {"dev", "local"}, False),
    ],
)
def test_a_stamp_covers_what_was_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stamped: list[str],
    wanted: set[str],
    is_done: bool,
) -> None:
    make_venv(tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "bin" / "python")
    (tmp_path / "stamp.json").write_text(json.dumps({"project": "hash", "extras": stamped}))
    assert setup.is_done("hash", wanted) is is_done
    assert not setup.is_done("another hash", wanted)


def test_without_a_stamp_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp.json")
    assert not setup.is_done("hash", {"local"})
    (tmp_path / "stamp.json").write_text("torn")
    assert not setup.is_done("hash", {"local"})


def test_a_venv_that_was_moved_is_not_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_venv(tmp_path / "here")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "here" / "bin" / "python")
    assert setup.is_usable(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "there" / "bin" / "python")
    assert not setup.is_usable(tmp_path / "there")


def test_a_missing_compiler_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    assert not setup.has_compiler()
    for name in ("gcc", "g++"):
        (tmp_path / name).touch(mode=0o755)
    assert setup.has_compiler()


def test_the_engines_version_is_the_pinned_one() -> None:
    pyproject = (SCRIPTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert setup.engine_version(pyproject).count(".") == 2


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Collecting httpx<1,>=0.28 (from x)", "finding httpx<1,>=0.28"),
        ("  Downloading numpy-2.0-cp311.whl (16 MB)", "fetching numpy-2.0-cp311.whl"),
        ("Building wheels for collected packages: llama-cpp-python", "building llama-cpp-python"),
        ("  [12/250] /usr/bin/c++ -O3 x.cpp", "[12/250]  4 %"),
        ("[ 40%] Building CXX object x.o", "40 %"),
    ],
)
def test_what_pip_says_becomes_one_line(
    capsys: pytest.CaptureFixture[str], line: str, shown: str
) -> None:
    progress = setup.Progress(is_terminal=False)
    progress.take(line)
    progress.show()
    assert shown in capsys.readouterr().out.splitlines()[-1]


def test_the_long_wait_is_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = setup.Progress(is_terminal=True)
    for n in range(1, 4):
        progress.take(f"[{n}/250] c++")
    assert capsys.readouterr().out.count("about five minutes") == 1


def test_the_clock_goes_on_while_a_process_is_silent() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", "print('one'); input(); print('two', end='')"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        lines = setup.lines_of(process)
        seen = [next(lines)]
        while seen[-1] != "one":
            seen.append(next(lines))
        assert next(lines) is None  # silent until it gets its input
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert [line for line in lines if line is not None] == ["two"]


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.main(["dve"]) == 2
    assert "dve" in capsys.readouterr().err


def test_the_engine_is_built_without_amx_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(setup, "CPUINFO", cpuinfo)
    cpuinfo.write_text("flags : fpu avx2\n")
    assert "CXXFLAGS" not in setup.build_environment({})
    cpuinfo.write_text("flags : fpu amx_tile\n")
    assert "CXXFLAGS" not in setup.build_environment({"CXX": str(tmp_path / "no-compiler")})
    built = setup.build_environment({"CXXFLAGS": "-O3"})
    assert built["CXXFLAGS"] == "-O3 -mno-amx-tile -mno-amx-int8"
    assert built["CFLAGS"] == "-mno-amx-tile -mno-amx-int8"
