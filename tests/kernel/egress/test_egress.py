"""The proxy as a program meets it: what passes, what does not, and what is never told."""

import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.kernel.egress.hosts import host
from tests.kernel.tools.offering import idle

from aios.config import Config, EgressConfig, Home, SandboxConfig
from aios.errors import AccessDenied
from aios.kernel.egress.connection import Connection
from aios.kernel.egress.egress import Way, network_of
from aios.kernel.egress.secrets import Secret, SecretStore
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import Process
from aios.kernel.sandbox.probe import Wall, probe

pytestmark = pytest.mark.anyio
CANARY = "canary-5b1f0c77aa"


@asynccontextmanager
async def proxied(
    tmp_path: Path, config: EgressConfig
) -> AsyncIterator[tuple[Kernel, Process, Way]]:
    async with open_kernel(Config(egress=config), Home(tmp_path), engines={}) as kernel:
        process = kernel.table.get(kernel.spawn_task("ann", idle))
        async with kernel.egress.open_way(process) as way:
            if way is None:
                pytest.skip("this machine has no bubblewrap")
            yield kernel, process, way


async def say(way: Way, *pieces: bytes) -> str:
    """All that the proxy answers to these bytes."""
    said = b""
    async with await anyio.connect_unix(way.socket) as stream:
        try:
            for piece in pieces:
                await stream.send(piece)
            while True:
                said += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return said.decode("latin-1")


def local(port: int, **more: int) -> EgressConfig:
    named = (f"localhost:{port}", f"127.0.0.1:{port}")
    return EgressConfig(hosts=named, private_hosts=named, **more)


def request(port: int, *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [
        f"{method} http://localhost:{port}/x?q=1 HTTP/1.1",
        f"Host: localhost:{port}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def turns() -> None:
    """Let all others do what they can."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_for_which_no_descriptor_is_left_waits_and_ends_nothing(
    tmp_path: Path,
) -> None:
    with anyio.fail_after(30), socket.socket(socket.AF_UNIX) as early:
        async with host() as web, proxied(tmp_path, local(web.port)) as (_, _, way):
            with no_descriptors():
                early.connect(str(way.socket))
                await turns()
            assert (await say(way, request(web.port))).endswith("\r\n\r\nhello")


async def test_a_way_that_closes_while_no_descriptor_is_left_leaves_no_connection(
    tmp_path: Path,
) -> None:
    lack = no_descriptors()

    async def give_back() -> None:
        await turns()
        lack.__exit__(None, None, None)

    with anyio.fail_after(30), socket.socket(socket.AF_UNIX) as early:
        async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
            process = kernel.table.get(kernel.spawn_task("ann", idle))
            process.network = ((),)
            async with anyio.create_task_group() as tasks, kernel.egress.open_way(process) as way:
                if way is None:
                    pytest.skip("this machine has no bubblewrap")
                early.connect(str(way.socket))
                await turns()
                lack.__enter__()
                tasks.start_soon(give_back)
            early.setblocking(False)
            assert early.recv(1) == b""


async def test_a_way_whose_socket_file_somebody_removed_still_closes(tmp_path: Path) -> None:
    with anyio.fail_after(30), socket.socket(socket.AF_UNIX) as early:
        async with host() as web, proxied(tmp_path, local(web.port)) as (_, _, way):
            early.connect(str(way.socket))
            await turns()
            way.socket.unlink()
        early.setblocking(False)
        assert early.recv(1) == b""


async def test_a_request_and_a_tunnel_pass_to_a_host_that_is_allowed(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with host() as web, proxied(tmp_path, local(web.port)) as (kernel, process, way):
            answer = await say(
                way, request(web.port, "Accept: */*", "Proxy-Connection: keep-alive")
            )
            assert answer.endswith("\r\n\r\nhello")
            head = web.said[0].decode()
            assert head.startswith(f"GET /x?q=1 HTTP/1.1\r\nHost: localhost:{web.port}\r\n")
            assert "Connection: close" in head
            assert "Proxy-Connection" not in head
            tunnel = f"CONNECT localhost:{web.port} HTTP/1.1\r\n\r\n".encode()
            assert "hello" in await say(way, tunnel + b"GET / HTTP/1.1\r\nHost: any\r\n\r\n")
            told = [each for each in kernel.journal.events if getattr(each, "what", "") == "egress"]
            assert len(told) == 2
            assert f"GET localhost:{web.port} at 127.0.0.1" in str(told[0])
            assert process.network == ()


async def test_bodies_pass_by_length_and_by_chunks_and_nothing_behind_them(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with host() as web, proxied(tmp_path, local(web.port)) as (_, __, way):
            body = request(web.port, "Content-Length: 4", method="POST", body="BODY")
            smuggled = b"GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert "hello" in await say(way, body + smuggled)
            chunks = request(
                web.port, "Transfer-Encoding: chunked", method="PUT", body="4\r\nBODY\r\n0\r\n\r\n"
            )
            assert "hello" in await say(way, chunks + smuggled)
            assert all(b"/admin" not in each for each in web.said)
            assert web.said[1].endswith(b"4\r\nBODY\r\n0\r\n\r\n")


@pytest.mark.parametrize("body", ["A" * 70_000, "0\r\n" + "A" * 70_000], ids=["size", "trailer"])
async def test_a_line_without_an_end_in_a_body_is_refused_and_ends_nothing(
    tmp_path: Path, body: str
) -> None:
    with anyio.fail_after(30):
        async with host() as web, proxied(tmp_path, local(web.port)) as (_, __, way):
            chunks = request(web.port, "Transfer-Encoding: chunked", method="PUT", body=body)
            assert "a line in its body is over 32768 bytes" in await say(way, chunks)
            assert "hello" in await say(way, request(web.port))


async def test_a_bug_of_ours_ends_the_connection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Connection) -> None:
        raise RuntimeError("on the way")

    with anyio.fail_after(30):
        async with host() as web, proxied(tmp_path, local(web.port)) as (_, process, way):
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "carry", fails)
                assert "X-Aios-Code: kernel_bug" in await say(way, request(web.port))
            assert "RuntimeError: on the way" in process.log.read(0)[0][-1].text
            assert "hello" in await say(way, request(web.port))


async def test_limits_hold(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with host(lambda _: b"x" * 5000) as web:
            async with proxied(tmp_path, local(web.port, max_bytes=2000)) as (kernel, process, way):
                assert len(await say(way, request(web.port))) < 5000
                assert kernel.egress.n_denied == 1
                assert "over 2000 bytes" in process.log.read(0)[0][-1].text
        async with host() as web:
            async with proxied(tmp_path, local(web.port, max_connections=1)) as (_, __, way):
                async with await anyio.connect_unix(way.socket):
                    assert "are open already" in await say(way, request(web.port))


async def test_a_secret_is_put_in_on_the_way_and_never_comes_back(tmp_path: Path) -> None:
    def echo(said: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + said

    with anyio.fail_after(30):
        async with host(echo) as web, host() as other:
            config = EgressConfig(
                hosts=(f"localhost:{web.port}", f"127.0.0.1:{other.port}"),
                private_hosts=(f"localhost:{web.port}", f"127.0.0.1:{other.port}"),
            )
            store = SecretStore(Home(tmp_path).secrets)
            store.put("API_KEY", Secret(CANARY, (f"localhost:{web.port}",)))
            store.put("OTHER", Secret("not for us 123", ("elsewhere.example",)))
            async with proxied(tmp_path, config) as (kernel, process, way):
                env = way.env()
                assert (env["API_KEY"], "OTHER" in env) == ("aios-secret:API_KEY", False)
                holder = "Authorization: Bearer aios-secret:API_KEY"
                answer = await say(way, request(web.port, holder))
                assert f"Bearer {CANARY}\r\n".encode() in web.said[0]
                assert f"Bearer {'*' * len(CANARY)}\r\n" in answer
                stolen = request(other.port, holder).replace(b"localhost", b"127.0.0.1")
                refused = await say(way, stolen)
                assert refused.startswith("HTTP/1.1 403")
                assert "the secret API_KEY is not for 127.0.0.1" in refused
                assert other.said == []
                lines, *_ = process.log.read(0)
                seen = f"{answer}{refused}{env}{lines}{list(kernel.journal.events)}{store.load()}"
                assert CANARY not in seen


async def test_a_secret_leaves_without_encryption_only_to_a_host_of_the_owners_own(
    tmp_path: Path,
) -> None:
    SecretStore(Home(tmp_path).secrets).put("KEY", Secret(CANARY, ("example.com:8080",)))
    config = EgressConfig(hosts=("example.com:8080",))
    asked = b"GET http://example.com:8080/ HTTP/1.1\r\nX-Key: aios-secret:KEY\r\n\r\n"
    with anyio.fail_after(30):
        async with proxied(tmp_path, config) as (_, __, way):
            assert "without encryption" in await say(way, asked)


async def test_a_stopped_process_sends_nothing_until_it_goes_on(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with host() as web, proxied(tmp_path, local(web.port)) as (kernel, process, way):
            await kernel.signals.stop(process)
            async with await anyio.connect_unix(way.socket) as stream:
                await stream.send(request(web.port))
                with anyio.move_on_after(0.2):
                    await stream.receive()
                assert web.said == []
                kernel.signals.cont(process)
                assert await stream.receive()


async def test_what_a_stopped_process_was_about_to_send_is_not_sent_when_it_is_killed(
    tmp_path: Path,
) -> None:
    with anyio.fail_after(30):
        async with host() as web, proxied(tmp_path, local(web.port)) as (kernel, process, way):
            await kernel.signals.stop(process)
            async with await anyio.connect_unix(way.socket) as stream:
                await stream.send(request(web.port))
                await anyio.sleep(0.2)
                await kernel.signals.kill(process, reason="")
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while await stream.receive():
                        pass
            assert web.said == []


async def test_names_that_nobody_answers_for_keep_no_other_program_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, (ended, end) = socket.getaddrinfo, os.pipe()

    def look_up(host: str, *args: int, **more: int) -> object:
        if host == "slow.example":
            os.read(ended, 1)
            raise socket.gaierror
        return resolve(host, *args, **more)

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    n_asked = 8
    with anyio.fail_after(30):
        async with host() as web, anyio.create_task_group() as tasks:
            named = (f"localhost:{web.port}", "slow.example:80")
            config = EgressConfig(hosts=named, private_hosts=named)
            async with proxied(tmp_path, config) as (kernel, _, way):
                other = kernel.table.get(kernel.spawn_task("bob", idle))
                other.network = (named,)
                async with kernel.egress.open_way(other) as free:
                    assert free is not None
                    for _ in range(n_asked):
                        tasks.start_soon(say, way, b"GET http://slow.example/ HTTP/1.1\r\n\r\n")
                    await turns()
                    assert (await say(free, request(web.port))).endswith("\r\n\r\nhello")
                    os.write(end, b"." * n_asked)
    os.close(ended)
    os.close(end)


async def test_who_asks_for_the_network_where_there_is_no_way_to_it_is_told(tmp_path: Path) -> None:
    if probe("landlock").wall is not Wall.LANDLOCK:
        pytest.skip("this machine has no Landlock")
    config = Config(sandbox=SandboxConfig(mode="landlock"))
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        process = kernel.table.get(kernel.spawn_task("ann", idle))
        for network, n_told in ((None, 0), ((("a.example",),), 1)):
            process.network = network
            async with kernel.egress.open_way(process) as way:
                assert way is None
            lines, *_ = process.log.read(0)
            assert ["install bubblewrap" in line.text for line in lines] == [True] * n_told


def test_a_child_gets_at_most_its_parents_network() -> None:
    class Parent:
        pid, name = 7, "ann"
        network: tuple[tuple[str, ...], ...] | None = (("*.example.com",),)

    parent = Parent()
    assert network_of(parent, None) is None  # type: ignore[arg-type]  # only these fields are used
    assert network_of(parent, ("a",)) == (("*.example.com",), ("a",))  # type: ignore[arg-type]
    parent.network = None
    with pytest.raises(AccessDenied):
        network_of(parent, ("a",))  # type: ignore[arg-type]
