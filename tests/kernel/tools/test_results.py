import time

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import declared, offer, run_tool

from aios.abi.storage import FileRead
from aios.abi.tools import MAX_RESULT_BYTES, ToolJob
from aios.abi.types import Right
from aios.errors import ToolFailed
from aios.kernel.tools.builtin.making import make
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.results import checked
from aios.kernel.tools.tool import Job

pytestmark = pytest.mark.anyio
LONG = "é" * 50_000


async def long(_: ToolJob) -> str:
    return LONG


@pytest.mark.parametrize("is_owner", [True, False])
async def test_a_long_result_is_kept_in_the_callers_files(
    booted: OpenKernel, is_owner: bool
) -> None:
    async with booted() as kernel:
        with anyio.fail_after(30):
            pid = await offer(kernel, "ann", long, declared("f"))
            gate = kernel.init_gate() if is_owner else kernel.gate(pid)
            result = await run_tool(gate, "ann/f")
            kept = (await gate.call(FileRead(path=result.kept_at))).value
        assert kept.data.decode() == LONG
        assert result.size_bytes == len(LONG.encode()) > len(result.text.encode())
        assert LONG.startswith(result.text)
        assert result.kept_at in result.notes[0]


async def test_who_may_not_write_files_gets_the_beginning(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with anyio.fail_after(30):
            pid = await offer(kernel, "ann", long, declared("f"))
            process = kernel.table.get(pid)
            process.rights = process.rights - {Right.FILE_WRITE}
            result = await run_tool(kernel.gate(pid), "f")
        assert not result.kept_at
        assert "the rest is lost" in result.notes[0]
        assert LONG.startswith(result.text)


async def test_a_result_that_is_far_too_long_is_a_failure(booted: OpenKernel) -> None:
    async def flood(_: ToolJob) -> str:
        return "é" * (MAX_RESULT_BYTES // 2 + 1)

    async with booted() as kernel:
        with anyio.fail_after(30):
            await offer(kernel, "ann", flood, declared("f"))
            with pytest.raises(ToolFailed, match="over the limit"):
                await run_tool(kernel.init_gate(), "ann/f")


RICH = f"[{'[],' * 2_700_000}[]]"


async def test_whether_a_result_is_json_is_found_without_making_its_values() -> None:
    async def body(_: Job) -> Outcome:
        return Outcome("")

    tool = make("f", "", body, parameters={})
    begun_s = time.process_time()
    assert checked(tool, Outcome(RICH, is_json=True)).text == RICH
    with pytest.raises(ToolFailed, match="JSON that is none"):
        checked(tool, Outcome(RICH[:-1], is_json=True))
    assert time.process_time() - begun_s < 0.6, "more than a second each, if all lists are made"


async def test_a_result_of_too_many_values_to_check_is_a_failure(booted: OpenKernel) -> None:
    async def flood(_: ToolJob) -> str:
        return RICH

    async with booted() as kernel:
        with anyio.fail_after(30):
            await offer(
                kernel, "ann", flood, declared("f", returns={"type": "array"}), is_json=True
            )
            with pytest.raises(ToolFailed, match="over 250,000 values"):
                await run_tool(kernel.init_gate(), "ann/f")
