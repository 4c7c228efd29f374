"""What a child gets of what its parent has."""

from typing import Any

import anyio
import pytest
from tests.kernel.conftest import MakeProgram, OpenKernel

from aios.abi.calls import Kill, Nice, Spawn
from aios.config import MemoryConfig
from aios.errors import AccessDenied
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.process import Process

pytestmark = pytest.mark.anyio

DEFAULT = MemoryConfig().block_bytes


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def child_of(kernel: Kernel, parent: Process | None, **asked: Any) -> Process:
    """What a program is that a process starts, or the owner."""
    kernel.urls = ["unix:///nowhere"]
    gate = kernel.init_gate() if parent is None else kernel.gate(parent.pid)
    child = kernel.table.get((await gate.call(Spawn(**asked))).value.pid)
    await kernel.init_gate().call(Kill(pid=child.pid))
    return child


async def test_who_was_made_nicer_starts_programs_that_are_as_nice(
    booted: OpenKernel, program: MakeProgram
) -> None:
    path = program("pass")
    with anyio.fail_after(60):
        async with booted() as kernel:
            parent = kernel.table.get(kernel.spawn_task("worker", idle))
            await kernel.init_gate().call(Nice(pid=parent.pid, nice=10))
            assert (await child_of(kernel, parent, program=path)).nice == 10
            assert (await child_of(kernel, parent, program=path, nice=15)).nice == 15
            with pytest.raises(AccessDenied, match="less nice"):
                await child_of(kernel, parent, program=path, nice=5)
            assert (await child_of(kernel, None, program=path)).nice == 0


async def test_no_manifest_makes_a_child_less_nice_than_its_parent(
    booted: OpenKernel, program: MakeProgram
) -> None:
    path = program("pass", manifest='name = "fast"\nnice = -20\n')
    with anyio.fail_after(60):
        async with booted() as kernel:
            parent = kernel.table.get(kernel.spawn_task("worker", idle))
            assert (await child_of(kernel, parent, program=path)).nice == 0
            assert (await child_of(kernel, None, program=path)).nice == -20


async def test_a_block_of_memory_is_no_larger_than_the_parents(
    booted: OpenKernel, program: MakeProgram
) -> None:
    path = program("pass")
    with anyio.fail_after(60):
        async with booted() as kernel:
            parent = kernel.table.get(kernel.spawn_task("worker", idle))
            for of_parent, asked, got in (
                (None, None, None),
                (None, 1 << 30, DEFAULT),
                (None, 1 << 16, 1 << 16),
                (1 << 16, None, 1 << 16),
                (1 << 16, 1 << 20, 1 << 16),
                (4 << 20, None, None),
                (4 << 20, 2 << 20, 2 << 20),
            ):
                parent.max_block_bytes = of_parent
                child = await child_of(kernel, parent, program=path, block_bytes=asked)
                assert child.max_block_bytes == got
            owners = await child_of(kernel, None, program=path, block_bytes=1 << 30)
            assert owners.max_block_bytes == 1 << 30
