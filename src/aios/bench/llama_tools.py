"""The programs of llama.cpp that we compare with; `scripts/build-llama-tools` builds them from llama-cpp-python's source."""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BATCHED_BENCH = "llama-batched-bench"
SERVER = "llama-server"


def find_tool(name: str, env: Mapping[str, str]) -> Path | None:
    """The built program of the same version as the embedded engine, or None.

    `AIOS_LLAMA_TOOLS` names another folder with the programs.
    """
    folder = _folder(env)
    if folder is None:
        return None
    path = folder / name
    return path if path.is_file() and os.access(path, os.X_OK) else None


def lacking(name: str) -> str:
    """What a row says when its program is not there."""
    return f"{name} is not built: run scripts/build-llama-tools"


def _folder(env: Mapping[str, str]) -> Path | None:
    if env.get("AIOS_LLAMA_TOOLS"):
        return Path(env["AIOS_LLAMA_TOOLS"])
    try:
        built = version("llama-cpp-python")
    except PackageNotFoundError:
        return None
    cache = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path.home() / ".cache"
    return cache / "aios" / "llama-tools" / built / "bin"
