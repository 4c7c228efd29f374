import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from tests.kernel.tools.mcp.serving import check, kernel_with, server
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.calls import Kill
from aios.errors import AccessDenied, ProcessGone, ToolFailed
from aios.kernel.tools.mcp.connection import Connection, _list
from aios.kernel.tools.mcp.spec import ServerSpec
from aios.kernel.tools.mcp.wire import Traffic
from aios.mcpconfig import McpConfig

if TYPE_CHECKING:
    from aios.kernel.clock import Clock
    from aios.kernel.tools.launcher import Launcher
    from aios.kernel.tools.mcp.session import Session

pytestmark = pytest.mark.anyio


async def test_a_server_that_brings_a_bug_to_light_ends_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Connection) -> None:
        raise ValueError("a bug")

    async with kernel_with(tmp_path, it=server("official.py")) as kernel:
        with anyio.fail_after(40):
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "_live", fails)
                assert (
                    "failed inside the kernel: ValueError: a bug"
                    in (await check(kernel, "it")).note
                )
                with pytest.raises(ToolFailed, match="a bug"):
                    await run_tool(kernel.init_gate(), "it/add", a=1, b=2)
            assert (await check(kernel, "it")).note == ""
            assert "3" in (await run_tool(kernel.init_gate(), "it/add", a=1, b=2)).text


async def test_a_list_that_takes_too_long_is_read_no_further() -> None:
    read = list[int]()

    def slow_tools() -> Iterator[bytes]:
        for number in range(500):
            read.append(number)
            time.sleep(0.01)  # noqa: TID251 - a schema is compiled
            yield b"{}"

    class Slow:
        async def list_tools(self) -> Iterator[bytes]:
            return slow_tools()

    with anyio.move_on_after(0.2) as late:
        await _list(cast("Session", Slow()))
    assert late.cancelled_caught
    assert len(read) < 400


async def test_all_who_wait_for_a_list_that_does_not_come_wait_no_longer_than_one() -> None:
    class Silent:
        async def list_tools(self) -> Iterator[bytes]:
            await anyio.sleep_forever()
            raise AssertionError

    config = McpConfig(start_timeout_s=1.0)
    connection = Connection(
        ServerSpec("it", "file"), cast("Launcher", None), config, cast("Clock", None)
    )
    connection._session = cast("Session", Silent())
    connection._traffic = traffic = Traffic(lambda: 0.0, is_changed=True)

    async def ask() -> None:
        with pytest.raises(ToolFailed, match="does not say"):
            await connection.relist()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(ask)
    assert traffic.is_changed, "the next one asks again"


async def test_a_server_of_a_killed_process_does_nothing_more(tmp_path: Path) -> None:
    place, home = tmp_path / "place", tmp_path / "home"
    place.mkdir()
    own = server("official.py", write=(str(place),), is_shared=False)
    async with kernel_with(home, own=own) as kernel:
        agent = kernel.spawn_task("agent", idle)

        async def act() -> None:
            with pytest.raises(ProcessGone):
                await run_tool(kernel.gate(agent), "own/late", path=str(place / "file"))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(act)
                connections = kernel.tools.servers._servers["own"].connections
                while agent not in connections or not connections[agent].n_calls:
                    await anyio.sleep(0.005)
                await anyio.sleep(0.1)  # it acts by now
                await kernel.init_gate().call(Kill(pid=agent))
            await anyio.sleep(1.0)  # three times what it takes to act
    assert not (place / "file").exists()


async def test_a_change_that_was_told_is_asked_for_though_who_asked_first_left(
    tmp_path: Path,
) -> None:
    async with kernel_with(tmp_path, old=server("old.py", "1", "silent")) as kernel:
        gate, agent = kernel.init_gate(), kernel.spawn_task("agent", idle)

        async def ask() -> None:
            with pytest.raises(ProcessGone):
                await run_tool(kernel.gate(agent), "old/echo")

        with anyio.fail_after(60):
            await run_tool(gate, "old/swap")
            (connection,) = kernel.tools.servers._servers["old"].connections.values()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while not connection._listing.locked():
                    await anyio.sleep(0.005)
                await anyio.sleep(0.1)  # and is not told
                await gate.call(Kill(pid=agent))
            with pytest.raises(AccessDenied, match="defined otherwise"):
                await run_tool(gate, "old/echo")
