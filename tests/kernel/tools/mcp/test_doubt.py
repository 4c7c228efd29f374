import json
from pathlib import Path

import pytest
from tests.kernel.tools.mcp.serving import kernel_with, server, tools_of, write_file
from tests.kernel.tools.offering import idle

from aios.abi.mcp import McpTools
from aios.kernel.tools.mcp.doubt import doubt_of

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


async def test_what_is_written_of_a_server_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with kernel_with(tmp_path, old=server("old.py", "a-secret-argument")) as kernel:
        assert "a-secret-argument" in repr(await tools_of(kernel, "old"))
        agent = kernel.gate(kernel.spawn_task("ann", idle))
        assert (await agent.call(McpTools(name="old"))).value.written == {}
