"""Malformed replies of servers and executables: nothing crashes, hangs, or is left behind.

`AIOS_FUZZ_REPLIES=10000` sends so many; without it a few, in some seconds.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from tests.kernel.tools.mcp.by_hand import by_hand, whole
from tests.kernel.tools.mcp.programs.fuzzed import malformed
from tests.kernel.tools.mcp.serving import kernel_with, server
from tests.kernel.tools.offering import run_tool

from aios.abi.tools import ToolRegister
from aios.config import Config, Home, McpConfig
from aios.errors import AiosError, KernelBug, ToolFailed
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.sandbox.processes import descendants
from aios.mcpconfig import McpServer

pytestmark = pytest.mark.anyio
N_REPLIES = int(os.environ.get("AIOS_FUZZ_REPLIES", "200"))
N_STDIO, N_HTTP = N_REPLIES * 45 // 100, N_REPLIES * 45 // 100
N_EXECUTABLES = N_REPLIES - N_STDIO - N_HTTP
N_AT_ONCE = 4
LONGEST_S = 60 + N_REPLIES / 5
TIMEOUT_S = 0.3

Send = Callable[[int, int], Awaitable[object]]
"""Sends a reply by its number, from one of those who work side by side."""


async def all_end(send: Send, n_replies: int) -> dict[str, int]:
    """Send all, some at once; each ends in a result or an error of a known kind. Returns: how many of each."""
    ends: dict[str, int] = {}
    numbers = iter(range(n_replies))

    async def work(worker: int) -> None:
        for n in numbers:
            end = "paused"
            while end == "paused":
                end = await how_it_ends(send, n, worker)
            ends[end] = ends.get(end, 0) + 1

    with anyio.fail_after(LONGEST_S):
        async with anyio.create_task_group() as tasks:
            for worker in range(N_AT_ONCE):
                tasks.start_soon(work, worker)
    assert sum(ends.values()) == n_replies
    return ends


async def how_it_ends(send: Send, n: int, worker: int) -> str:
    """Send one. Returns: "result", the code of an error, or "paused" if the server is to start again first."""
    try:
        await send(n, worker)
    except KernelBug as error:
        pytest.fail(f"reply {n}: {error}")
    except AiosError as error:
        is_down = error.retry_after_s is not None or "does not run" in error.message
        return "paused" if is_down else error.code
    return "result"


def told(where: str, ends: dict[str, int]) -> None:
    """Write how the replies ended; `-s` shows it."""
    sys.stdout.write(f"{where}: {ends}\n")


def n_files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def nothing_is_left(before: tuple[int, set[int]]) -> None:
    """Fail unless processes and files are as before; a thread may need a moment for its own."""
    n_files_before, pids_before = before
    with anyio.fail_after(30):
        while not pids_before.issuperset(descendants(os.getpid())) or n_files() > n_files_before:
            await anyio.sleep(0.02)


async def settle(home: Path) -> tuple[int, set[int]]:
    """Open and close what stays open once used, such as worker threads. Returns: how many files are open, and which processes other tests keep."""
    kept = set(descendants(os.getpid()))
    async with kernel_with(home / "first", it=server("old.py")) as kernel:
        await run_tool(kernel.init_gate(), "it/echo")
    return n_files(), kept


def config(fuzzed: McpServer) -> Config:
    """Fuzzed servers that are started again at once, one for each who works, and a good one beside them."""
    bad = {f"bad{worker}": fuzzed for worker in range(N_AT_ONCE)}
    return Config(mcp=McpConfig(servers={**bad, "good": server("old.py")}, max_restart_s=0.001))


async def stay_well(
    kernel: Kernel, tool: str, n_replies: int, *, is_given: Callable[[int], bool]
) -> dict[str, int]:
    """Get all replies from the bad servers; the good one works after it as before."""
    gate = kernel.init_gate()

    async def send(n: int, worker: int) -> object:
        while True:
            try:
                return await run_tool(gate, f"bad{worker}/{tool}", n=n)
            except ToolFailed:
                if is_given(n):  # else the reply before it broke the connection
                    raise

    ends = await all_end(send, n_replies)
    assert (await run_tool(gate, "good/echo", a=1)).text == '{"a": 1}'
    kernel.check_invariants()
    assert not kernel.init.runs
    return ends


async def test_a_server_over_stdio_sends_nonsense(tmp_path: Path) -> None:
    before = await settle(tmp_path)
    fuzzed = server("fuzzed.py", timeout_s=TIMEOUT_S)
    async with open_kernel(config(fuzzed), Home(tmp_path / "home"), engines={}) as kernel:
        ends = await stay_well(kernel, "call", N_STDIO, is_given=lambda _: True)
    told("stdio", ends)
    assert ends["tool_failed"] > N_STDIO // 4, ends
    await nothing_is_left(before)


async def test_a_server_over_http_sends_nonsense(tmp_path: Path) -> None:
    before = await settle(tmp_path)
    answered: set[int] = set()

    def answer(request: dict[str, object]) -> bytes:
        n, nonsense = http_nonsense(request)
        answered.add(n)
        return nonsense

    async with by_hand(answer) as url:
        fuzzed = McpServer(url=url, timeout_s=TIMEOUT_S)
        async with open_kernel(config(fuzzed), Home(tmp_path / "home"), engines={}) as kernel:
            ends = await stay_well(kernel, "echo", N_HTTP, is_given=answered.__contains__)
    told("http", ends)
    assert ends["tool_failed"] > N_HTTP // 4, ends
    assert answered == set(range(N_HTTP))
    await nothing_is_left(before)


def http_nonsense(request: dict[str, object]) -> tuple[int, bytes]:
    """The number that is asked for, and an answer of HTTP whose body, head or both are none."""
    params = request["params"]
    assert isinstance(params, dict)
    n: int = params["arguments"]["n"]
    body = malformed(n, request["id"])
    events = b"".join(b"data: " + part + b"\n\n" for part in body.split(b"\n"))
    streamed = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    ways = [
        whole(body),
        streamed + events,
        streamed + body,
        streamed + b"id: 1\nretry: 1\ndata:\n\n",
        whole(body, "content-length: 7"),
        whole(body)[: n % 200],
        whole(body).replace(b"200 OK", [b"500 No", b"404 No", b"202 Yes", b"999 ?", b"200"][n % 5]),
        b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        whole(body).replace(b"application/json", b"text/html"),
        whole(body, "content-encoding: gzip"),
        whole(body, "transfer-encoding: chunked"),
        body,
        b"",
    ]
    return n, ways[(n // 9) % len(ways)]


async def test_an_executable_writes_nonsense(tmp_path: Path) -> None:
    before = await settle(tmp_path)
    folder = tmp_path / "replies"
    folder.mkdir()
    manifest = tmp_path / "tool.toml"
    script = 'cat \\"$1\\"; eval \\"$2\\"'
    manifest.write_text(
        f'name = "me/tool"\ndescription = "d"\ncommand = ["sh", "-c", "{script}", "x", "{{file}}", "{{end}}"]\n'
        f'read = ["{folder}"]\noutput = "json"\n[parameters]\ntype = "object"\n[returns]\ntype = "object"\n'
    )
    ways = ["exit 0", "exit 3", "kill -9 $$", "kill -11 $$", "sleep 60 & exit 0", 'cat "$1" >&2']
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        gate = kernel.init_gate()
        await gate.call(ToolRegister(manifests=(str(manifest),)))

        async def send(n: int, _: int) -> object:
            file = folder / str(n)
            await anyio.Path(file).write_bytes(malformed(n, 1))
            return await run_tool(gate, "me/tool", file=str(file), end=ways[n % len(ways)])

        ends = await all_end(send, N_EXECUTABLES)
        kernel.check_invariants()
        told("executables", ends)
        assert ends["tool_failed"] > N_EXECUTABLES // 4, ends
    await nothing_is_left(before)


def test_the_same_number_makes_the_same_reply() -> None:
    assert [malformed(n, 1) for n in range(50)] == [malformed(n, 1) for n in range(50)]
