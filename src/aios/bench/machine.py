"""Which machine the figures were taken on, and how much of it others used meanwhile."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

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


class OthersMeter:
    """Tells how much of the processors was used by programs that are neither this one nor its children."""

    def __init__(self) -> None:
        self._begun = (perf_counter(), _busy_s(), _own_s())

    def share(self) -> float:
        """From 0 to 1, since this was made; children count as others until they have ended and been waited for."""
        begun_s, busy_s, own_s = self._begun
        room_s = (perf_counter() - begun_s) * (os.cpu_count() or 1)
        return others_share(busy_s=_busy_s() - busy_s, own_s=_own_s() - own_s, room_s=room_s)


def others_share(*, busy_s: float, own_s: float, room_s: float) -> float:
    """The share of `room_s` processor seconds that was used but not by us; from 0 to 1, for clocks tick coarsely."""
    return min(1.0, max(0.0, (busy_s - own_s) / room_s))


def _busy_s() -> float:
    """Processor seconds of all programs since boot; 0 where the system does not tell."""
    try:
        first = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft_irq = (int(ticks) for ticks in first.split()[1:8])
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


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
