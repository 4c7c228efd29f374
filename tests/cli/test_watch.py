"""The table of `run --top`."""

from pathlib import Path

import anyio
import pytest

from aios.cli.watch import LiveTable
from aios.config import Config, Home
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel

pytestmark = pytest.mark.anyio


async def test_children_stay_in_the_table_when_their_parent_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    let_go = anyio.Event()

    async def body(_: LocalGate) -> None:
        await let_go.wait()

    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        parent = kernel.spawn_task("parent", body)
        kid = kernel.spawn_task("kid", body, ppid=parent)
        table = LiveTable(kernel.init_gate(), [parent])
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(table.keep_looking)
                await anyio.wait_all_tasks_blocked()
                let_go.set()
                for pid in (parent, kid):
                    await kernel.table.get(pid).wait_ended()
                tasks.cancel_scope.cancel()
            await table.finish()
    rows = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "exit 0" in line]
    assert rows == ["parent", "kid"]
