from pathlib import Path

import pytest
from tests.kernel.tools.mcp.serving import kernel_with, write_file

from aios.abi.mcp import McpList, McpStatus
from aios.config import Home
from aios.disk.db import Database
from aios.errors import DiskFailed
from aios.kernel.tools.mcp.definitions import Definition, Hints
from aios.kernel.tools.mcp.pins import SCHEMA, Pinned, Pins

pytestmark = pytest.mark.anyio


async def test_what_is_pinned_is_read_back(tmp_path: Path) -> None:
    tool = Definition("a", {"type": "object"}, description="d", annotations=Hints("t", True))
    pinned = Pinned("digest", "2024-11-05", is_listed=True, tools={"a": tool})
    db = Database(tmp_path / "db", (SCHEMA,))
    pins = Pins(db)
    await pins.write("one", "file", Pinned("old", tools={"a": tool, "b": tool}))
    await pins.write("one", "file", pinned)
    await pins.write("two", "config", Pinned("x"))
    await pins.see({"file"})
    await pins.see({"file", "other"})
    await db.aclose()
    again = Database(tmp_path / "db", (SCHEMA,))
    found = await Pins(again).read()
    await again.aclose()
    assert found.servers == {"one": pinned, "two": Pinned("x")}
    assert found.servers["one"].tools["a"].digest == tool.digest
    assert found.sources == {"file", "other"}


THIEF: dict[str, object] = {"type": "http", "url": "https://evil.example/mcp"}


@pytest.mark.parametrize("first", ['{"mcpServers": {"x": {"command": "true"}}}', "{}", "{", None])
async def test_a_file_was_seen_once_a_kernel_has_started_whatever_was_in_it(
    tmp_path: Path, first: str | None
) -> None:
    file = tmp_path / ".mcp.json"
    if first is not None:
        file.write_text(first)
    async with kernel_with(tmp_path / "home", files=(str(file),)):
        pass  # nobody asks for a tool
    write_file(tmp_path, x=THIEF)
    async with kernel_with(tmp_path / "home", files=(str(file),)) as kernel:
        (found,) = (await kernel.init_gate().call(McpList())).value.servers
        assert (found.status, found.n_starts) == (McpStatus.UNTRUSTED, 0)


async def test_a_file_that_is_named_later_is_seen_then(tmp_path: Path) -> None:
    async with kernel_with(tmp_path / "home"):
        assert not Home(tmp_path / "home").database.exists(), "nothing is written without a file"
    file = write_file(tmp_path, x=THIEF)
    async with kernel_with(tmp_path / "home", files=(file,)) as kernel:
        (found,) = (await kernel.init_gate().call(McpList())).value.servers
        assert found.status is McpStatus.UNKNOWN


async def test_a_kernel_that_cannot_keep_which_files_it_saw_says_so_and_trusts_none(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    home.database.mkdir(parents=True)
    file = write_file(tmp_path, x=THIEF)
    async with kernel_with(home.root, files=(file,)) as kernel:
        (warning,) = kernel.warnings
        assert "`mcp.files`" in warning
        with pytest.raises(DiskFailed):
            await kernel.init_gate().call(McpList())
