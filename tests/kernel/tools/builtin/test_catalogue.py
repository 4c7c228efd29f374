import json

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.storage import FileRead
from aios.abi.tools import ToolList
from aios.abi.types import Right
from aios.errors import AccessDenied, InvalidCall, NotFound
from aios.kernel.tools.builtin.clock import told

pytestmark = pytest.mark.anyio


async def test_every_tool_of_the_kernel_describes_itself(booted: OpenKernel) -> None:
    async with booted() as kernel:
        tools = (await kernel.init_gate().call(ToolList())).value.tools
        assert [tool.name for tool in tools] == sorted(tool.name for tool in tools)
        for tool in tools:
            assert tool.description
            assert tool.parameters["additionalProperties"] is False
            kernel.tools._registry.get(kernel.init, tool.name).parameters.check()


async def test_files_are_read_and_changed_as_the_caller(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob = (kernel.gate(kernel.spawn_task(name, idle)) for name in ("ann", "bob"))
        with anyio.fail_after(30):
            written = await run_tool(ann, "files", action="write", path="a.txt", text="one\n")
            assert json.loads(written.text)["changed"][0]["path"] == "/agents/ann/a.txt"
            await run_tool(ann, "files", action="append", path="a.txt", text="two\n")
            await run_tool(ann, "files", action="move", path="a.txt", target="b.txt")
            assert (await run_tool(ann, "files", action="read", path="b.txt")).text == "one\ntwo\n"
            part = await run_tool(ann, "files", action="read", path="b.txt", offset=4, length=2)
            assert part.text == "tw\n[bytes 4 to 6 of 8; go on with offset 6]"
            rows = json.loads((await run_tool(ann, "files", action="list")).text)
            assert [row["path"] for row in rows] == ["/agents/ann/b.txt"]
            with pytest.raises(AccessDenied):
                await run_tool(bob, "files", action="read", path="/agents/ann/b.txt")
            with pytest.raises(AccessDenied):
                await run_tool(bob, "files", action="write", path="/agents/ann/b.txt", text="")
            with pytest.raises(InvalidCall, match="no `path`"):
                await run_tool(ann, "files", action="delete")
            await run_tool(ann, "files", action="delete", path="b.txt")
            with pytest.raises(NotFound):
                await run_tool(ann, "files", action="read", path="b.txt")


async def test_a_right_that_was_taken_away_is_missing_in_tools_too(booted: OpenKernel) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        process = kernel.table.get(pid)
        process.rights = process.rights - {Right.FILE_WRITE, Right.MEMORY_READ}
        for tool, arguments in (
            ("files", {"action": "write", "path": "x", "text": "y"}),
            ("memory", {"action": "recall", "text": "y"}),
        ):
            with pytest.raises(AccessDenied):
                await run_tool(kernel.gate(pid), tool, **arguments)
        with pytest.raises(NotFound):
            await kernel.init_gate().call(FileRead(path="/agents/ann/x"))


async def test_search_finds_the_lines_with_all_words(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        texts = {"a/1.txt": "a red boat\na blue boat", "a/2.txt": "Boat, RED", "b.txt": "red boat"}
        with anyio.fail_after(30):
            for path, text in texts.items():
                await run_tool(ann, "files", action="write", path=path, text=text)
            found = json.loads(
                (await run_tool(ann, "search_files", words="red BOAT", path="a")).text
            )
            first = json.loads((await run_tool(ann, "search_files", words="boat", limit=1)).text)
        assert [(hit["path"], hit["line"]) for hit in found["hits"]] == [
            ("/agents/ann/a/1.txt", 1),
            ("/agents/ann/a/2.txt", 1),
        ]
        assert (found["n_files"], found["is_whole"]) == (2, True)
        assert (len(first["hits"]), first["is_whole"]) == (1, False)


async def test_memory_remembers_recalls_and_updates(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        with anyio.fail_after(30):
            note = json.loads(
                (await run_tool(ann, "memory", action="remember", text="the boat is red")).text
            )
            await run_tool(ann, "memory", action="update", id=note["id"], text="the boat is blue")
            found = json.loads((await run_tool(ann, "memory", action="recall", text="boat")).text)
            with pytest.raises(InvalidCall, match="no `id`"):
                await run_tool(ann, "memory", action="update", text="x")
            with pytest.raises(InvalidCall, match="only blanks"):
                await run_tool(ann, "memory", action="remember", text=" \n")
        assert [each["text"] for each in found] == ["the boat is blue"]


def test_the_clock_tells_a_moment_in_a_zone() -> None:
    assert told(0, "UTC")["time"] == "1970-01-01T00:00:00+00:00"
    assert told(0, "UTC")["weekday"] == "Thursday"
    assert told(1e9, "Europe/Rome")["time"] == "2001-09-09T03:46:40+02:00"
    for zone in ("Nowhere/Atlantis", "../../etc/passwd", "/etc/passwd", ""):
        with pytest.raises(InvalidCall):
            told(0, zone)
