"""Which machine the figures were taken on: the head of every output."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aios import __version__
from aios.bench.rows import Row

PACKAGES = ("llama-cpp-python", "llguidance", "anyio", "uvloop", "msgspec", "uvicorn", "starlette")


def machine_row() -> Row:
    """The machine as a row: the value is the number of cores that this process may use, the note all the rest."""
    cores = len(os.sched_getaffinity(0))
    parts = [
        _cpu_model(),
        f"{_memory_gib():.0f} GiB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"aios {__version__}",
        *(f"{name} {found}" for name in PACKAGES if (found := _version(name))),
        f"load average {os.getloadavg()[0]:.1f}",
    ]
    return Row(
        bench="machine", row="cores", value=cores, unit="cores", ok=True, note=", ".join(parts)
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _memory_gib() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2**30


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
