import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.calls import Cont, Stop
from aios.config import Config, Home, ToolsConfig
from aios.errors import AccessDenied, InvalidCall, ToolFailed
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.tools.builtin.http_fetch import MAX_FETCHES, MAX_LOOKUPS, Fetched, read

pytestmark = pytest.mark.anyio
Answer = Callable[[str], bytes]


def answer(body: str, *, kind: str = "text/plain", status: str = "200 OK", more: str = "") -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}\r\n"
    return head.encode() + data


def port_of(listener: anyio.abc.Listener[anyio.abc.SocketStream]) -> int:
    """The port that was picked."""
    return listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django here


@asynccontextmanager
async def web(answer_of: Answer) -> AsyncIterator[tuple[int, list[str]]]:
    """A host on this machine. Gives its port and the paths that it was asked for."""
    asked: list[str] = []

    async def attend(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            path = (await stream.receive()).split(b" ")[1].decode()
            asked.append(path)
            await stream.send(answer_of(path))

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = port_of(listener)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, attend)
            yield port, asked
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def kernel_with(
    tmp_path: Path, *hosts: str, private: bool = True, limit: int = 1000
) -> AsyncIterator[Kernel]:
    tools = ToolsConfig(
        fetch_hosts=hosts, fetch_private_hosts=hosts if private else (), max_fetch_bytes=limit
    )
    async with open_kernel(Config(tools=tools), Home(tmp_path), engines={}) as kernel:
        yield kernel
        kernel.check_invariants()


async def fetch(kernel: Kernel, url: str, **rest: str) -> str:
    return (await run_tool(kernel.init_gate(), "http_fetch", url=url, **rest)).text


async def test_a_page_comes_as_text_or_raw(tmp_path: Path) -> None:
    page = "<html><body><p>Hello <b>sea</b></p></body></html>"
    with anyio.fail_after(30):
        async with web(lambda _: answer(page, kind="text/html; charset=utf-8")) as (port, _):
            async with kernel_with(tmp_path, f"localhost:{port}") as kernel:
                url = f"http://localhost:{port}/x"
                assert await fetch(kernel, url) == "Hello sea"
                assert await fetch(kernel, url, form="raw") == page


async def test_a_host_that_is_not_listed_or_is_private_is_never_asked(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with web(lambda _: answer("secret")) as (port, asked):
            async with kernel_with(tmp_path, "example.com") as kernel:
                with pytest.raises(AccessDenied, match=r"allowed hosts: example\.com"):
                    await fetch(kernel, f"http://localhost:{port}/")
            async with kernel_with(
                tmp_path, f"localhost:{port}", f"127.0.0.1:{port}", private=False
            ) as kernel:
                for host in ("localhost", "127.0.0.1"):
                    with pytest.raises(AccessDenied, match="public address"):
                        await fetch(kernel, f"http://{host}:{port}/")
        assert asked == []


async def test_a_redirect_is_judged_like_an_address(tmp_path: Path) -> None:
    def redirect(path: str) -> bytes:
        if path == "/good":
            return answer("", status="302 Found", more="Location: /end\r\n")
        if path == "/loop":
            return answer("", status="302 Found", more="Location: /loop\r\n")
        if path == "/end":
            return answer("the end")
        return answer("", status="302 Found", more=f"Location: {path[1:]}\r\n")

    with anyio.fail_after(30):
        async with (
            web(redirect) as (port, asked),
            kernel_with(tmp_path, f"localhost:{port}") as kernel,
        ):
            start = f"http://localhost:{port}"
            assert await fetch(kernel, f"{start}/good") == "the end"
            with pytest.raises(ToolFailed, match="redirects"):
                await fetch(kernel, f"{start}/loop")
            n_asked = len(asked)
            for bad in (f"http://127.0.0.1:{port}/end", "http://169.254.169.254/latest"):
                with pytest.raises(AccessDenied):
                    await fetch(kernel, f"{start}/{bad}")
            with pytest.raises(InvalidCall):
                await fetch(kernel, f"{start}/file:///etc/passwd")
            with pytest.raises(ToolFailed, match="is no address"):
                await fetch(kernel, f"{start}/http://[")
            assert len(asked) == n_asked + 4, "none of the targets was asked"


async def test_a_name_that_resolves_otherwise_the_second_time_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that is judged is the one that is connected to."""
    asked_for: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[object]:
        asked_for.append(host)
        address = "93.184.216.34" if len(asked_for) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected: list[str] = []

    async def connect(*, remote_host: str, **_: object) -> object:
        connected.append(remote_host)
        raise OSError("no network in tests")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("anyio.connect_tcp", connect)
    with anyio.fail_after(30):
        async with kernel_with(tmp_path, "rebind.example", private=False) as kernel:
            with pytest.raises(ToolFailed):
                await fetch(kernel, "http://rebind.example/")
            with pytest.raises(AccessDenied):
                await fetch(kernel, "http://rebind.example/")
    assert connected == ["93.184.216.34"]
    assert asked_for == ["rebind.example"] * 2


async def test_look_ups_that_nobody_waits_for_any_more_are_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ended, end), n_begun = os.pipe(), 0

    def look_up(*_: object, **__: object) -> object:
        nonlocal n_begun
        n_begun += 1
        os.read(ended, 1)
        raise socket.gaierror

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    with anyio.fail_after(60):
        async with kernel_with(tmp_path, "*", private=False) as kernel:
            for number in range(40):
                with anyio.move_on_after(0.05):
                    await fetch(kernel, f"http://x{number}.example/")
            assert n_begun == MAX_LOOKUPS
            other = kernel.gate(kernel.spawn_task("other", idle))
            with anyio.move_on_after(0.05):
                await run_tool(other, "http_fetch", url="http://z.example/")
            assert n_begun == MAX_LOOKUPS + 1, "who asks for itself waits for nobody else's"
            os.write(end, b"." * 100)
            for number in range(40):  # the places are free again
                with suppress(ToolFailed):
                    await fetch(kernel, f"http://y{number}.example/")
    os.close(ended)
    os.close(end)


async def test_addresses_that_do_not_answer_keep_only_their_own_family_waiting(
    tmp_path: Path,
) -> None:
    n_held, is_full = 0, anyio.Event()

    async def attend(stream: anyio.abc.SocketStream) -> None:
        nonlocal n_held
        async with stream:
            if b"/slow" not in await stream.receive():
                await stream.send(answer("here"))
                return
            n_held += 1
            if n_held == MAX_FETCHES:
                is_full.set()
            await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            host = f"localhost:{port_of(listener)}"
            async with kernel_with(tmp_path, host) as kernel, anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, attend)
                ann = kernel.gate(kernel.spawn_task("ann", idle))
                for i in range(MAX_FETCHES + 4):
                    url = f"http://{host}/slow{i}"
                    tasks.start_soon(partial(run_tool, ann, "http_fetch", url=url))
                await is_full.wait()
                assert await fetch(kernel, f"http://{host}/") == "here"
                assert n_held == MAX_FETCHES
                tasks.cancel_scope.cancel()


async def test_what_is_too_long_no_text_or_an_error_is_told(tmp_path: Path) -> None:
    answers = {
        "/long": answer("x" * 2_000),
        "/image": answer("PNG", kind="image/png"),
        "/gone": answer("no such boat", status="404 Not Found"),
        "/broken": b"HTTP/1.1 nonsense\r\n\r\n",
    }
    words = {
        "/long": "over 1000 bytes",
        "/image": "image/png",
        "/gone": "404.*boat",
        "/broken": "read",
    }
    with anyio.fail_after(30):
        async with web(answers.__getitem__) as (port, _):
            async with kernel_with(tmp_path, f"localhost:{port}") as kernel:
                for path, said in words.items():
                    with pytest.raises(ToolFailed, match=said):
                        await fetch(kernel, f"http://localhost:{port}{path}")


async def test_stop_breaks_the_hop_off_and_cont_makes_it_again(tmp_path: Path) -> None:
    asked, texts = anyio.Event(), []

    async def attend(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            if not asked.is_set():
                asked.set()
                await anyio.sleep_forever()
            await stream.send(answer("at last"))

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = port_of(listener)
        async with kernel_with(tmp_path, f"localhost:{port}") as kernel:
            pid = kernel.spawn_task("ann", idle)

            async def use() -> None:
                url = f"http://localhost:{port}/"
                texts.append((await run_tool(kernel.gate(pid), "http_fetch", url=url)).text)

            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(listener.serve, attend)
                    async with anyio.create_task_group() as users:
                        users.start_soon(use)
                        await asked.wait()
                        await kernel.init_gate().call(Stop(pid=pid))
                        await wait_all_tasks_blocked()
                        assert texts == []
                        await kernel.init_gate().call(Cont(pid=pid))
                    tasks.cancel_scope.cancel()
    assert texts == ["at last"]


def test_text_is_decoded_as_it_says() -> None:
    latin = Fetched("u", 200, "text/plain; charset=latin-1", "é".encode("latin-1"))
    assert read(latin, is_raw=True) == "é"
    unknown = Fetched("u", 200, "text/plain; charset=klingon", b"\xff")
    assert read(unknown, is_raw=True) == "\ufffd"
    japanese = Fetched("u", 200, 'text/plain; charset="Shift_JIS"', "海".encode("shift_jis"))
    assert read(japanese, is_raw=True) == "海"
    for codec in ("undefined", "idna", "punycode", "unicode_escape", "zlib", "../x", "é"):
        odd = Fetched("u", 200, f"text/plain; charset={codec}", b"plain" * 200_000)
        assert read(odd, is_raw=True).startswith("plain"), codec
    assert read(Fetched("u", 200, "application/ld+json", b"{}"), is_raw=False) == "{}"
