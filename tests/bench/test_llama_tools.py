"""Where the programs of llama.cpp are looked for."""

from importlib.metadata import version
from pathlib import Path

from aios.bench.llama_tools import SERVER, find_tool, lacking


def _program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_named_folder_comes_first(tmp_path: Path) -> None:
    path = _program(tmp_path / "own", SERVER)
    _program(
        tmp_path / "cache" / "aios" / "llama-tools" / version("llama-cpp-python") / "bin", SERVER
    )
    env = {"AIOS_LLAMA_TOOLS": str(path.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert find_tool(SERVER, env) == path


def test_tools_of_the_embedded_version_are_found_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "aios" / "llama-tools"
    _program(folder / "0.0.1" / "bin", SERVER)
    assert find_tool(SERVER, {"XDG_CACHE_HOME": str(tmp_path)}) is None
    path = _program(folder / version("llama-cpp-python") / "bin", SERVER)
    assert find_tool(SERVER, {"XDG_CACHE_HOME": str(tmp_path)}) == path


def test_a_file_that_cannot_be_run_is_no_tool(tmp_path: Path) -> None:
    (tmp_path / SERVER).write_text("not a program")
    assert find_tool(SERVER, {"AIOS_LLAMA_TOOLS": str(tmp_path)}) is None


def test_what_is_lacking_says_how_to_build_it() -> None:
    assert "scripts/build-llama-tools" in lacking(SERVER)
