from pathlib import Path

import anyio
import pytest

from aios.config import SandboxConfig
from aios.errors import ToolFailed
from aios.kernel.sandbox.launch import Launcher as Sandbox
from aios.kernel.sandbox.places import Places
from aios.kernel.tools.launcher import PATH, Launcher, Order
from aios.kernel.tools.manifest import Bounds

pytestmark = pytest.mark.anyio


def order(folder: Path, *command: str, bounds: Bounds | None = None) -> Order:
    return Order(command, {"PATH": PATH}, folder, bounds or Bounds(), Places((), {}), (folder,))


async def test_a_tool_asks_for_no_more_memory_than_the_sandbox_allows(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    launcher = Launcher(Sandbox(SandboxConfig(memory_bytes=128 << 20), tmp_path / "home"))
    with anyio.fail_after(30):
        running = await launcher.open(
            order(work, "sh", "-c", "ulimit -v", bounds=Bounds(memory_bytes=8 << 30))
        )
        assert running.process.stdout is not None
        said = b"".join([piece async for piece in running.process.stdout])
        await running.wait_gone()
        await running.process.aclose()
    assert int(said) == 128 << 10


async def test_what_cannot_be_started_is_a_failed_tool(tmp_path: Path) -> None:
    launcher = Launcher(Sandbox(SandboxConfig(), tmp_path / "home"))
    with pytest.raises(ToolFailed, match="is not there"):
        await launcher.open(order(tmp_path, "no-such-program"))
