import json
from pathlib import Path

import pytest
from tests.kernel.tools.mcp.serving import kernel_with, server, tools_of, write_file
from tests.kernel.tools.offering import idle

from aios.abi.mcp import McpTools
from aios.kernel.access.manager import MAX_SHOWN_CHARS
from aios.kernel.tools.mcp.definitions import Definition, Offer
from aios.kernel.tools.mcp.doubt import doubt_of
from aios.kernel.tools.mcp.pins import Pinned
from aios.kernel.tools.mcp.server import Server
from aios.kernel.tools.mcp.spec import ServerSpec, Written

pytestmark = pytest.mark.anyio


async def test_the_question_about_a_changed_server_shows_all_that_a_yes_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_TEST_KEY", "canary-1234")
    git: dict[str, object] = {"command": "git-server", "args": ["-x"]}
    home = tmp_path / "home"
    async with kernel_with(home, files=(write_file(tmp_path, git=git),)):
        pass
    changed = {
        **git,
        "args": ["-x", "--key", "${AIOS_TEST_KEY}"],
        "env": {"LD_PRELOAD": "/project/x.so", "KEY": "canary-5678", "HIDES": "git-server"},
        "headers": {"Authorization": "Bearer ${AIOS_TEST_KEY}"},
    }
    async with kernel_with(home, files=(write_file(tmp_path, git=changed),)) as kernel:
        doubt = doubt_of(kernel.tools.servers._servers["git"])
        assert json.loads(doubt.shown) == {
            "command": "git-server",
            "url": "",
            "env": {"LD_PRELOAD": "/project/x.so", "KEY": "***", "HIDES": "***"},
            "headers": {"Authorization": "***${AIOS_TEST_KEY}"},
            "folder": str(tmp_path),
            "args": ["-x", "--key", "${AIOS_TEST_KEY}"],
        }
        assert (await tools_of(kernel, "git")).written == json.loads(doubt.shown)


def test_a_long_value_pushes_nothing_else_out_of_the_question() -> None:
    padding = {f"A{i}": "" for i in range(4_000)}
    env = {**padding, "LD_PRELOAD": "/project/x.so"}
    for written in (
        Written("git-server", "https://" + "x" * 60_000, {"LD_PRELOAD": "/project/x.so"}, {}),
        Written("git-server", "", env, padding, args=("x",) * 4_000),
    ):
        shown = doubt_of(Server(ServerSpec("git", "file", written=written))).shown
        assert len(shown) <= MAX_SHOWN_CHARS
        assert "git-server" in shown
        assert "/project/x.so" in shown


def test_a_long_tool_pushes_no_other_change_out_of_the_question() -> None:
    secret = "canary-" + "9" * 60
    before = Definition("a", {}, description="y" * 60_000)
    after = Definition("a", {}, description=f"now {secret * 300}")
    other = Definition("b", {}, description="another")
    spec = ServerSpec("git", "file", digest="d", secrets=(secret,))
    server = Server(spec, Pinned("d", tools={"a": before}), Offer({"a": after, "b": other}))
    shown = doubt_of(server).shown
    assert len(shown) <= MAX_SHOWN_CHARS
    assert "now ***" in shown
    assert "canary" not in shown
    assert "another" in shown


async def test_what_is_written_of_a_server_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with kernel_with(tmp_path, old=server("old.py", "a-secret-argument")) as kernel:
        assert "a-secret-argument" in repr(await tools_of(kernel, "old"))
        agent = kernel.gate(kernel.spawn_task("ann", idle))
        assert (await agent.call(McpTools(name="old"))).value.written == {}
