"""What the machine has for engines that run on it."""

import os
from pathlib import Path


def count_cores() -> int:
    """Physical cores that this process may use: two threads on one core only get into each other's way."""
    cpus = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in cpus}
    return max(1, len(cores))


def _siblings(cpu: int) -> str:
    """The hardware threads of a CPU's core, as Linux writes them; the CPU itself where that is not known."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
