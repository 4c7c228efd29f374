"""A kernel with many idle processes, in an interpreter of its own: what does each of them take?

Run by the `startup` bench: `python -m aios.bench.crowd guests 10000` prints the bytes a process. The figure is the growth
of the resident size (RSS), measured after the first hundred so that nothing that is made only once is in it.
"""

import gc
import os
import sys
from pathlib import Path

import anyio

from aios.bench.children import scratch_folder
from aios.config import Config, Home
from aios.engine.scripted import ScriptedEngine
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel

N_FIRST = 100


async def bytes_each(kind: str, n: int) -> float:
    """The memory that each of `n` idle processes of a kind (`guests` or `tasks`) takes."""
    with scratch_folder() as folder:
        engines = {"scripted": ScriptedEngine()}
        async with open_kernel(Config(), Home(folder), engines=engines) as kernel:
            await _grow(kernel, kind, N_FIRST)
            before = _resident_bytes()
            await _grow(kernel, kind, n)
            return (_resident_bytes() - before) / n


async def _grow(kernel: Kernel, kind: str, n: int) -> None:
    for _ in range(n):
        if kind == "guests":
            kernel.admit("guest")
        else:
            kernel.spawn_task("task", _idle)
    await anyio.wait_all_tasks_blocked()
    gc.collect()


async def _idle(_: LocalGate) -> str | None:
    await anyio.sleep_forever()
    return None


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(args: list[str]) -> None:
    """Print the bytes that each process takes."""
    kind, n = args
    sys.stdout.write(f"{anyio.run(bytes_each, kind, int(n)):.0f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
