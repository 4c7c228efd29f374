import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import anyio
import pytest
from tests.sdk.serving import scripted, served

from aios.abi.types import Exit, Pid
from aios.errors import InvalidCall
from aios.sdk.client import Client, connect
from aios.sdk.program import result_text

TIMEOUT_S = 60


@dataclass
class Ran:
    """How a program ended and what it wrote."""

    end: Exit
    out: list[str]
    err: list[str]


@dataclass
class Bench:
    """A kernel that runs programs written by a test."""

    folder: Path
    client: Client

    async def start(self, source: str, *args: str) -> Pid:
        """Start a program; returns its pid."""
        (self.folder / "agent.toml").write_text('name = "prog"\n')
        (self.folder / "main.py").write_text("import aios\n" + dedent(source))
        # The kernel scrubs a child's environment; this lets a coverage run see into it.
        env = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
        return (await self.client.spawn(self.folder, *args, env=env)).pid

    async def end(self, pid: Pid) -> Ran:
        """Wait until it has ended."""
        end = (await self.client.wait(pid)).exit
        ran = Ran(end, [], [])
        async with self.client.logs(pid) as lines:
            async for line in lines:
                if line.stream in {"out", "err"}:
                    (ran.out if line.stream == "out" else ran.err).append(line.text)
        return ran

    async def run(self, source: str, *args: str) -> Ran:
        """Run a program to its end."""
        return await self.end(await self.start(source, *args))


@asynccontextmanager
async def bench(folder: Path, *said: str) -> AsyncIterator[Bench]:
    with anyio.fail_after(TIMEOUT_S):
        async with served(scripted(*said)) as kernel:
            async with connect(kernel.urls[0], kernel.owner_token) as client:
                yield Bench(folder, client)


PLAIN = """
    import sys
    def main(client, name, mark="!"):
        print("pid", client.getpid().name)
        assert "asyncio" not in sys.modules, "an event loop was loaded"
        return client.chat(f"greet {name}").text + mark
    aios.run(main)
"""
ASYNC = """
    async def main(client, name, mark="!"):
        print("pid", (await client.getpid()).name)
        return (await client.chat(f"greet {name}")).text + mark
    aios.run(main)
"""


@pytest.mark.anyio
@pytest.mark.parametrize("source", [PLAIN, ASYNC])
async def test_what_main_returns_is_the_result_of_the_process(source: str, tmp_path: Path) -> None:
    async with bench(tmp_path, "hello", "hello") as kernel:
        ran = await kernel.run(source, "Ann")
        assert (ran.end, ran.out, ran.err) == (Exit(0, "", "hello!"), ["pid prog"], [])
        assert (await kernel.run(source, "Ann", "?")).end.result == "hello?"


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_an_exception_is_shown_and_ends_the_process_with_status_1(
    kind: str, tmp_path: Path
) -> None:
    source = f"""
        {kind} main(client):
            try:
                {{}}["pen"]
            except KeyError as error:
                raise ValueError("no ink") from error
        aios.run(main)
    """
    async with bench(tmp_path) as kernel:
        ran = await kernel.run(source)
    assert ran.end.status == 1
    assert ran.end.result == ""
    assert ran.err[0] == "Traceback (most recent call last):"
    assert ran.err[-1] == "ValueError: no ink"
    assert any("in main" in line for line in ran.err)
    assert "KeyError: 'pen'" in ran.err
    assert not any("ExceptionGroup" in line for line in ran.err)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_an_error_of_a_call_is_shown_with_its_hint(kind: str, tmp_path: Path) -> None:
    wait = "await " if kind == "async def" else ""
    source = f"""
        {kind} main(client):
            {wait}client.chat("x", model="nobody")
        aios.run(main)
    """
    async with bench(tmp_path) as kernel:
        ran = await kernel.run(source)
    assert ran.end.status == 1
    assert "NotFound" in ran.err[-2]
    assert ran.err[-1].startswith("hint: models served")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_main_may_choose_its_status(kind: str, tmp_path: Path) -> None:
    source = f"""
        import sys
        {kind} main(client):
            sys.exit(7)
        aios.run(main)
    """
    async with bench(tmp_path) as kernel:
        ran = await kernel.run(source)
    assert (ran.end.status, ran.err) == (7, [])


@pytest.mark.anyio
async def test_arguments_that_do_not_fit_main_show_its_usage(tmp_path: Path) -> None:
    source = """
        def main(client, name, mark="!", *rest): ...
        aios.run(main)
    """
    async with bench(tmp_path) as kernel:
        ran = await kernel.run(source)
    assert ran.end.status == 2
    assert ran.err == ["missing a required argument: 'name'", "usage: NAME [MARK] [REST...]"]


@pytest.mark.anyio
async def test_options_of_the_command_line_are_keyword_arguments(tmp_path: Path) -> None:
    source = """
        async def main(client, *files, max_bytes: int = 3, loud: bool = False):
            \"\"\"Count bytes.\"\"\"
            return [files, max_bytes, loud]
        aios.run(main)
    """
    async with bench(tmp_path) as kernel:
        ran = await kernel.run(source, "a", "--max-bytes=7", "b", "--loud")
        assert ran.end.result == '[["a","b"],7,true]'
        ran = await kernel.run(source, "--help")
        assert ran.out == ["usage: [FILES...] [--max-bytes MAX-BYTES] [--loud]", "", "Count bytes."]


WAITS = {
    "def": """
        import time
        def main(client):
            try:
                print("ready")
                time.sleep(60)
            finally:
                print("cleaned up")
        aios.run(main)
    """,
    "def in a tool": """
        import time
        @aios.tool
        def wait() -> None:
            print("ready")
            time.sleep(60)
        def main(client):
            try:
                print(wait.call_now("{}").text)
            finally:
                print("cleaned up")
        aios.run(main)
    """,
    "async def": """
        import anyio
        async def main(client):
            try:
                print("ready")
                await anyio.sleep(60)
            finally:
                print("cleaned up")
        aios.run(main)
    """,
    "async def in a call": """
        async def main(client):
            try:
                print("ready")
                async with client.logs((await client.getpid()).pid, follow=True) as lines:
                    async for _ in lines:
                        pass
            finally:
                print("cleaned up")
        aios.run(main)
    """,
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", WAITS)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_cancels_main_and_its_clean_up_runs(
    kind: str, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    async with bench(tmp_path) as kernel:
        pid = await kernel.start(WAITS[kind])
        async with kernel.client.logs(pid, follow=True) as lines:
            async for line in lines:
                if line.text == "ready":
                    break
        row = next(row for row in await kernel.client.ps() if row.pid == pid)
        assert row.os_pid is not None
        os.kill(row.os_pid, number)
        ran = await kernel.end(pid)
    assert ran.end.status == status
    assert ran.out == ["ready", "cleaned up"]
    assert ran.err == []


CLEANING = {
    "def": """
        import time
        def main(client):
            try:
                print("ready")
                time.sleep(60)
            finally:
                print("cleaning up")
                time.sleep(0.5)
                print("cleaned up")
        aios.run(main)
    """,
    "async def": """
        import anyio
        async def main(client):
            try:
                print("ready")
                await anyio.sleep(60)
            finally:
                with anyio.CancelScope(shield=True):
                    print("cleaning up")
                    await anyio.sleep(0.5)
                    print("cleaned up")
        aios.run(main)
    """,
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", CLEANING)
async def test_a_second_sigterm_does_not_cut_the_clean_up_short(kind: str, tmp_path: Path) -> None:
    async with bench(tmp_path) as kernel:
        pid = await kernel.start(CLEANING[kind])
        async with kernel.client.logs(pid, follow=True) as lines:
            async for line in lines:
                if line.text in {"ready", "cleaning up"}:
                    row = next(row for row in await kernel.client.ps() if row.pid == pid)
                    assert row.os_pid is not None
                    os.kill(row.os_pid, signal.SIGTERM)
        ran = await kernel.end(pid)
    assert ran.end.status == 143
    assert ran.out == ["ready", "cleaning up", "cleaned up"]
    assert ran.err == []


@pytest.mark.anyio
async def test_a_result_that_nobody_could_read_is_an_error(tmp_path: Path) -> None:
    source = """
        def main(client):
            return {object()}
        aios.run(main)
    """
    async with bench(tmp_path) as kernel:
        ran = await kernel.run(source)
    assert ran.end.status == 1
    assert "InvalidCall" in ran.err[-2]


@pytest.mark.anyio
async def test_output_shows_while_the_program_runs(tmp_path: Path) -> None:
    async with bench(tmp_path) as kernel:
        pid = await kernel.start(WAITS["def"])
        async with kernel.client.logs(pid, follow=True) as lines:
            assert (await anext(lines)).text == "ready"
        await kernel.client.kill(pid)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("text", "text"),
        ({"a": 1}, '{"a":1}'),
        (Exit(0), '{"status":0,"reason":"","result":""}'),
        (False, "false"),
    ],
)
def test_results_are_text_or_json(value: object, text: str) -> None:
    assert result_text(value) == text


@pytest.mark.parametrize("value", ["x" * ((1 << 20) + 1), object(), lambda: 1])
def test_a_result_must_be_small_and_plain(value: object) -> None:
    with pytest.raises(InvalidCall, match="main returned"):
        result_text(value)
