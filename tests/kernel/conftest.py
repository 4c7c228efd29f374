"""A whole kernel for tests: real parts, no model."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from aios.config import AccessConfig, ApprovalsConfig, Config, Home, KernelConfig, SchedulerConfig
from aios.engine.base import Engine
from aios.kernel.kernel import Kernel, open_kernel

UNASKED, NOBODY = AccessConfig("full"), ApprovalsConfig(timeout_s=0)
"""Nobody sits there to be asked; what asks has tests of its own."""


class OpenKernel(Protocol):
    """Boots a kernel whose invariants are checked at the end."""

    def __call__(
        self, *engines: Engine, limits: KernelConfig = ..., scheduler: SchedulerConfig = ...
    ) -> AbstractAsyncContextManager[Kernel]: ...


@pytest.fixture
def booted(tmp_path: Path) -> OpenKernel:
    @asynccontextmanager
    async def boot(
        *engines: Engine,
        limits: KernelConfig = KernelConfig(),
        scheduler: SchedulerConfig = SchedulerConfig(),
    ) -> AsyncIterator[Kernel]:
        named = {f"engine{i}": engine for i, engine in enumerate(engines)}
        config = Config(kernel=limits, scheduler=scheduler, access=UNASKED, approvals=NOBODY)
        async with open_kernel(config, Home(tmp_path), engines=named) as kernel:
            yield kernel
            kernel.check_invariants()
        assert kernel.table.n_alive == 1, "only init is left"
        assert not kernel.journal.statistics().n_open, "a call was not settled"
        assert all(lane.n_granted == 0 for lane in kernel.scheduler.statistics().values())

    return boot


@pytest.fixture
def program(tmp_path: Path) -> "MakeProgram":
    def make(source: str, *, name: str = "prog", manifest: str = "") -> str:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "agent.toml").write_text(manifest or f'name = "{name}"\n')
        (folder / "main.py").write_text(source)
        return str(folder)

    return make


class MakeProgram(Protocol):
    """Writes a program folder and returns its path."""

    def __call__(self, source: str, *, name: str = ..., manifest: str = ...) -> str: ...
