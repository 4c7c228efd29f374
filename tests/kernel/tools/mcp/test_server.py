from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from tests.kernel.tools.mcp.serving import check, kernel_with
from tests.kernel.tools.mcp.serving import server as started
from tests.kernel.tools.offering import idle

from aios.abi.mcp import McpList, McpState, McpStatus, McpTools
from aios.abi.tools import ToolRun
from aios.errors import AccessDenied, ToolFailed
from aios.kernel.tools.mcp.definitions import Definition, Offer
from aios.kernel.tools.mcp.pins import Pinned
from aios.kernel.tools.mcp.server import Server
from aios.kernel.tools.mcp.spec import ServerSpec

ECHO = Definition("echo", {"type": "object"}, description="d")
SPEC = ServerSpec("it", "file", command=("/bin/x", "canary"), digest="1")


def trusted(**rest: Definition) -> Server:
    return Server(SPEC, Pinned("1", is_listed=True, tools={"echo": ECHO, **rest}))


def test_only_what_is_trusted_starts() -> None:
    trusted().check_startable(0.0)
    for pinned in (None, Pinned("2")):
        server = Server(SPEC, pinned)
        assert server.info().status is McpStatus.UNTRUSTED
        with pytest.raises(AccessDenied, match="not what its owner trusts"):
            server.check_startable(0.0)
    broken = Server(ServerSpec("it", "file", problem="no"), Pinned(""))
    assert broken.info().status is McpStatus.UNUSABLE
    with pytest.raises(ToolFailed):
        broken.check_startable(0.0)


def test_pauses_grow_up_to_a_limit_and_end_with_a_success() -> None:
    server = trusted()
    pauses = []
    for _ in range(8):
        server.note_failure("it broke", 100.0, 20.0)
        pauses.append(server.not_before_s - 100.0)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0]
    assert server.info().status is McpStatus.FAILING
    with pytest.raises(ToolFailed, match="started again in 20 s") as caught:
        server.check_startable(100.0)
    assert caught.value.retry_after_s == 20.0
    server.check_startable(120.0)
    server.note_success()
    server.check_startable(100.0)
    assert server.info().status is McpStatus.IDLE


def test_only_a_tool_as_it_was_trusted_is_called() -> None:
    server = trusted(old=Definition("old", {}))
    server.check_callable("echo")
    server.offer = Offer({"echo": Definition("echo", {}), "more": ECHO}, {"bad one": "its name"})
    with pytest.raises(AccessDenied, match="defined otherwise"):
        server.check_callable("echo")
    with pytest.raises(ToolFailed, match="no longer offers"):
        server.check_callable("old")
    states = {tool.name: tool.state for tool in server.infos()}
    assert states == {
        "echo": McpState.CHANGED,
        "more": McpState.NEW,
        "old": McpState.GONE,
        "bad one": McpState.REFUSED,
    }
    assert (server.info().n_tools, server.info().n_waiting) == (2, 2)


def test_what_is_shown_holds_no_arguments() -> None:
    info = trusted().info()
    assert info.where == "x"
    assert "canary" not in repr(info)


@pytest.mark.anyio
async def test_what_a_server_says_of_its_failure_is_data_from_outside(tmp_path: Path) -> None:
    async with kernel_with(tmp_path, dead=started("old.py", "1", "dies")) as kernel:
        with anyio.fail_after(40):
            calm = kernel.spawn_task("calm", idle)
            await kernel.gate(calm).call(McpList())
            assert kernel.table.get(calm).taint is None
            assert "ended with status 3" in (await check(kernel, "dead")).note
            for call in (McpList(), McpTools(name="dead"), ToolRun(name="dead/echo", arguments={})):
                pid = kernel.spawn_task(type(call).__name__, idle)
                with suppress(ToolFailed):
                    await kernel.gate(pid).call(call)
                taint = kernel.table.get(pid).taint
                assert taint is not None
                assert taint.source == "MCP server dead"
