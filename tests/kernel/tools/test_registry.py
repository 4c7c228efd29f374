import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import declared, idle

from aios.abi.tools import ToolDeclaration, ToolInfo, ToolList, ToolRegister, ToolUnregister
from aios.errors import ResourceExhausted
from aios.kernel.gate import LocalGate
from aios.kernel.tools import registry
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio


def long_tool(name: str) -> ToolDeclaration:
    """One that takes about 50 KB."""
    return declared(name, parameters={"type": "object", "description": "x" * 50_000})


async def pages(gate: LocalGate) -> list[tuple[ToolInfo, ...]]:
    found = [(await gate.call(ToolList())).value]
    while found[-1].next:
        found.append((await gate.call(ToolList(after=found[-1].next))).value)
    return [each.tools for each in found]


async def test_what_a_process_offers_is_bounded_in_bytes(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        tools = tuple(long_tool(f"t{n}") for n in range(20))
        with anyio.fail_after(30):
            for _ in range(2):  # the same again takes the place of the first
                await gate.call(ToolRegister(tools=tools))
            with pytest.raises(ResourceExhausted, match="bytes"):
                await gate.call(ToolRegister(tools=(long_tool("one-more"),)))
            await gate.call(ToolUnregister(names=("t0",)))
            await gate.call(ToolRegister(tools=(long_tool("one-more"),)))


async def test_a_list_of_many_tools_comes_in_pages(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        with anyio.fail_after(30):
            tools = tuple(long_tool(f"t{n}") for n in range(10, 20))
            await gate.call(ToolRegister(tools=tools))
            (whole,) = await pages(gate)
            monkeypatch.setattr(registry, "PAGE_BYTES", 120_000)
            found = await pages(gate)
            assert [tool for page in found for tool in page] == list(whole)
            assert {len([t for t in page if t.name.startswith("ann/")]) for page in found} <= {1, 2}
            assert len(found) >= 5
            assert await Client(gate).tools.list() == whole
            monkeypatch.setattr(registry, "PAGE_BYTES", 1)
            assert {len(page) for page in await pages(gate)} == {1}, (
                "one that is longer comes alone"
            )
