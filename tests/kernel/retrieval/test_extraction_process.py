import os
import signal
from pathlib import Path

import anyio
import pytest
from tests.kernel.sandbox.test_spawning import LOOPS, inherited

from aios.kernel.retrieval.extraction_process import ExtractionProcess
from aios.kernel.retrieval.formats import Form

pytestmark = pytest.mark.anyio

__all__ = ["inherited"]


async def test_one_process_reads_many_files() -> None:
    reader = ExtractionProcess(20.0)
    with anyio.fail_after(30):
        for n in range(3):
            assert (await reader.extract(Form.TEXT, b"%d" % n)).pieces[0].text == str(n)
        assert reader.n_started == 1
        await reader.aclose()


async def test_a_file_that_takes_too_long_ends_the_process_and_the_next_is_read() -> None:
    reader = ExtractionProcess(20.0)
    with anyio.fail_after(30):
        await reader.extract(Form.TEXT, b"first")
        assert reader._process is not None
        os.kill(reader._process.pid, signal.SIGSTOP)
        reader._timeout_s = 0.1
        assert "takes over 0.1 s" in (await reader.extract(Form.TEXT, b"slow")).problem
        reader._timeout_s = 20.0
        assert (await reader.extract(Form.TEXT, b"next")).pieces[0].text == "next"
        assert reader.n_started == 2
        await reader.aclose()


async def test_a_file_that_kills_the_process_has_no_text_and_the_next_is_read() -> None:
    reader = ExtractionProcess(20.0)
    with anyio.fail_after(30):
        await reader.extract(Form.TEXT, b"first")
        assert reader._process is not None
        os.kill(reader._process.pid, signal.SIGKILL)
        assert "ended the process" in (await reader.extract(Form.TEXT, b"x" * 1_000_000)).problem
        assert (await reader.extract(Form.TEXT, b"next")).pieces[0].text == "next"
        await reader.aclose()


async def test_a_cancelled_reading_leaves_no_reply_for_the_next() -> None:
    reader = ExtractionProcess(20.0)
    with anyio.fail_after(30):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await reader.extract(Form.TEXT, b"cancelled")
        assert (await reader.extract(Form.TEXT, b"next")).pieces[0].text == "next"
        await reader.aclose()


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_the_process_inherits_nothing_of_the_kernel(inherited: int) -> None:
    reader = ExtractionProcess(20.0)
    with anyio.fail_after(30):
        await reader.extract(Form.TEXT, b"first")
        assert reader._process is not None
        there = Path(f"/proc/{reader._process.pid}/fd/{inherited}")
        assert (
            not there.exists() or there.readlink() != Path(f"/proc/self/fd/{inherited}").readlink()
        )
        await reader.aclose()
