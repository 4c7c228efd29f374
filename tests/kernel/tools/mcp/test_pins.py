from pathlib import Path

import pytest

from aios.disk.db import Database
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
