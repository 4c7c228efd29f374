import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from tests.kernel.tools.mcp.serving import check, kernel_with, server
from tests.kernel.tools.offering import run_tool

from aios.errors import ToolFailed
from aios.kernel.tools.mcp.connection import Connection, _list

if TYPE_CHECKING:
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
