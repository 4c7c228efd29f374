"""Hostile programs against the proxy: each says something to it, and a host on this machine must never hear of it.

The owner allows every public host here, so that only the judgement of addresses and the narrow grammar stand between a payload and the canary.
"""

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.kernel.egress.hosts import Host, host
from tests.kernel.egress.test_egress import say
from tests.kernel.tools.offering import idle, run_tool

from aios.config import Config, EgressConfig, Home
from aios.kernel.egress.egress import Way
from aios.kernel.egress.secrets import Secret, SecretStore
from aios.kernel.kernel import Kernel, open_kernel

pytestmark = pytest.mark.anyio
CANARY = "canary-9e02d1b6f4"

INWARD = (
    "localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.1", "127.0.0.1.", "0x7f000001", "2130706433", "017700000001", "0177.0.0.1",
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "[::127.0.0.1]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "localhost%00.example.com", "localhost%2eexample.com", "example.com@localhost",
    "localhost\\@example.com", "localhost#.example.com", "localhost?.example.com", "localhost/.example.com", "example.com:80@127.0.0.1",
    "\uff4cocalhost", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1", "localhost\t", "lo\x00calhost", "",
)  # fmt: skip
"""Names and addresses that lead, or might lead, to this machine."""

FORBIDDEN = ("169.254.169.254", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "224.0.0.1", "[fd00::1]", "255.255.255.255")  # fmt: skip

P = "{port}"
SPLIT: dict[str, str] = {
    "two hosts": f"GET http://a.example:{P}/ HTTP/1.1\r\nHost: a.example:{P}\r\nHost: localhost\r\n\r\n",
    "host differs": f"GET http://localhost:{P}/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
    "host with user": f"GET http://localhost:{P}/ HTTP/1.1\r\nHost: x@localhost:{P}\r\n\r\n",
    "host with path": f"GET http://localhost:{P}/ HTTP/1.1\r\nHost: localhost:{P}/x\r\n\r\n",
    "tunnel host differs": f"CONNECT localhost:{P} HTTP/1.1\r\nHost: b.example:{P}\r\n\r\n",
    "origin form": f"GET / HTTP/1.1\r\nHost: localhost:{P}\r\n\r\n",
    "bare line feed": f"GET http://localhost:{P}/ HTTP/1.1\nHost: localhost:{P}\r\n\r\n",
    "bare carriage return": f"GET http://localhost:{P}/ HTTP/1.1\r\nA: b\rHost: x\r\n\r\n",
    "folded": f"GET http://localhost:{P}/ HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n",
    "space before colon": f"GET http://localhost:{P}/ HTTP/1.1\r\nHost : x\r\n\r\n",
    "nul": f"GET http://localhost:{P}/ HTTP/1.1\r\nA: \0\r\n\r\n",
    "no name": f"GET http://localhost:{P}/ HTTP/1.1\r\n: x\r\n\r\n",
    "length and chunks": f"POST http://localhost:{P}/ HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": f"POST http://localhost:{P}/ HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nBODY",
    "length with sign": f"POST http://localhost:{P}/ HTTP/1.1\r\nContent-Length: +4\r\n\r\nBODY",
    "list of lengths": f"POST http://localhost:{P}/ HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\nBODY",
    "strange coding": f"POST http://localhost:{P}/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "coding twice": f"POST http://localhost:{P}/ HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "trace": f"TRACE http://localhost:{P}/ HTTP/1.1\r\n\r\n",
    "lower case": f"get http://localhost:{P}/ HTTP/1.1\r\n\r\n",
    "http 2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http 0.9": f"GET http://localhost:{P}/\r\n\r\n",
    "ftp": f"GET ftp://localhost:{P}/ HTTP/1.1\r\n\r\n",
    "file": "GET file:///etc/passwd HTTP/1.1\r\n\r\n",
    "unix": "CONNECT /run/aios/kernel.sock HTTP/1.1\r\n\r\n",
    "tunnel without port": "CONNECT localhost HTTP/1.1\r\n\r\n",
    "tunnel to port 0": "CONNECT localhost:0 HTTP/1.1\r\n\r\n",
    "tunnel to a port too high": "CONNECT localhost:99999 HTTP/1.1\r\n\r\n",
    "space in the address": f"GET http://localhost:{P}/ x HTTP/1.1\r\n\r\n",
    "fragment": f"GET http://localhost:{P}/#@b.example HTTP/1.1\r\n\r\n",
    "socks": "\x05\x01\x00\r\n\r\n",
    "nothing": "\r\n\r\n",
}


@asynccontextmanager
async def world(
    tmp_path: Path, **lists: tuple[str, ...]
) -> AsyncIterator[tuple[Kernel, Way, Host]]:
    """A kernel whose owner allows every public host, and a canary on this machine."""
    async with host() as web:
        allowed = lists.get("hosts", ("*", f"*:{web.port}"))
        config = EgressConfig(
            hosts=tuple(each.format(port=web.port) for each in allowed),
            private_hosts=tuple(each.format(port=web.port) for each in lists.get("private", ())),
        )
        async with open_kernel(Config(egress=config), Home(tmp_path), engines={}) as kernel:
            process = kernel.table.get(kernel.spawn_task("eve", idle))
            async with kernel.egress.open_way(process) as way:
                if way is None:
                    pytest.skip("this machine has no bubblewrap")
                yield kernel, way, web


async def test_no_name_and_no_number_leads_inward(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with world(tmp_path) as (kernel, way, web):
            for name in (*INWARD, *FORBIDDEN):
                for line in (f"GET http://{name}:{web.port}/", f"CONNECT {name}:{web.port}"):
                    answer = await say(way, f"{line} HTTP/1.1\r\n\r\n".encode())
                    assert answer.split(" ")[1:2] in (["400"], ["403"], ["502"]), (line, answer)
            assert web.said == []
            assert kernel.egress.n_denied == 2 * len((*INWARD, *FORBIDDEN))


@pytest.mark.parametrize("name", SPLIT)
async def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, name: str) -> None:
    with anyio.fail_after(30):
        async with world(tmp_path, private=("localhost:{port}",)) as (_, way, web):
            payload = SPLIT[name].replace("{port}", str(web.port)).encode("latin-1")
            answer = await say(way, payload)
            assert not answer.startswith("HTTP/1.1 2"), answer
            assert web.said == [], "the host, which is allowed, heard of it"


async def test_a_name_that_changes_its_mind_is_resolved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 80))] for each in ("127.0.0.1",) * 3]  # fmt: skip
    answers[0][0] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))
    asked: list[str] = []
    reached: list[str] = []

    def resolve(name: str, *_: object, **__: object) -> object:
        asked.append(name)
        return answers[len(asked) - 1]

    async def connect(address: str, *_: object, **__: object) -> None:
        reached.append(address)
        raise ConnectionRefusedError

    async with world(tmp_path) as (_, way, web):
        monkeypatch.setattr("socket.getaddrinfo", resolve)
        monkeypatch.setattr(anyio, "connect_tcp", connect)
        with anyio.fail_after(30):
            await say(way, f"CONNECT rebind.example:{web.port} HTTP/1.1\r\n\r\n".encode())
    assert (asked, reached) == (["rebind.example"], ["93.184.216.34"])


async def test_a_mixed_answer_of_the_name_service_gives_only_what_is_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(0, 0, 0, "", (each, 80)) for each in ("10.0.0.1", "::ffff:127.0.0.1", "127.0.0.1")]

    def resolve(*_: object, **__: object) -> object:
        return found

    async with world(tmp_path) as (_, way, web):
        monkeypatch.setattr("socket.getaddrinfo", resolve)
        with anyio.fail_after(30):
            said = await say(way, f"CONNECT mixed.example:{web.port} HTTP/1.1\r\n\r\n".encode())
    assert "is at no public address" in said
    assert "10.0.0.1" not in said


def greeting(name: str, *, more: str = "") -> bytes:
    """The greeting of a TLS client, for one name or two."""
    names = b"".join(b"\0" + struct.pack(">H", len(n)) + n.encode() for n in (name, more) if n)
    sni = struct.pack(">H", len(names)) + names
    extensions = struct.pack(">HH", 0, len(sni)) + sni if names else b""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += struct.pack(">H", len(extensions)) + extensions
    hello = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + struct.pack(">H", len(hello)) + hello


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        (greeting("localhost"), True),
        (greeting("LOCALHOST"), True),
        (greeting("evil.example"), False),
        (greeting(""), False),
        (greeting("localhost", more="evil.example"), False),
        (greeting("localhost")[:-4] + b"\0\0\0\0", False),
        (b"\x16\x03\x01\0\x05\x01\0\0\0\0", False),
    ],
)
async def test_a_tunnel_greets_the_host_that_it_is_for(
    tmp_path: Path, said: bytes, passes: bool
) -> None:
    with anyio.fail_after(30):
        async with world(tmp_path, hosts=("localhost:{port}",), private=("*:{port}",)) as w:
            _, way, web = w
            opened = f"CONNECT localhost:{web.port} HTTP/1.1\r\n\r\n".encode()
            await say(way, opened, said, b"\r\n\r\n")
            assert any(web.said) is passes


async def test_a_secret_is_for_its_hosts_whatever_the_header_says(tmp_path: Path) -> None:
    SecretStore(Home(tmp_path).secrets).put("KEY", Secret(CANARY, ("api.example.com",)))
    payloads = [
        "GET http://localhost:{port}/ HTTP/1.1\r\nX: aios-secret:KEY\r\n\r\n",
        "GET http://localhost:{port}/ HTTP/1.1\r\nHost: api.example.com\r\nX: aios-secret:KEY\r\n\r\n",
        "GET http://localhost:{port}/ HTTP/1.1\r\nX-Forwarded-Host: api.example.com\r\nX: aios-secret:KEY\r\n\r\n",
        "GET http://api.example.com@localhost:{port}/ HTTP/1.1\r\nX: aios-secret:KEY\r\n\r\n",
        "GET http://localhost:{port}/?aios-secret:KEY HTTP/1.1\r\n\r\n",
        "GET http://localhost:{port}/ HTTP/1.1\r\naios-secret:KEY: x\r\n\r\n",
        "CONNECT localhost:{port} HTTP/1.1\r\nX: aios-secret:KEY\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST http://localhost:{port}/ HTTP/1.1\r\nContent-Length: 19\r\n\r\naios-secret:KEYBODY",
        "GET http://localhost:{port}/ HTTP/1.1\r\nX: aios-secret:KEY\x00\r\n\r\n",
    ]
    with anyio.fail_after(30):
        async with world(tmp_path, private=("*:{port}",)) as (kernel, way, web):
            for payload in payloads:
                answer = await say(way, payload.format(port=web.port).encode())
                assert CANARY not in answer
            told = f"{web.said}{list(kernel.journal.events)}{kernel.table.find_named('eve')}"
            assert CANARY not in told


SOURCE = """
import json, os, socket, subprocess, urllib.request
port, said = int(os.environ["P"] if "P" in os.environ else input()), {}
def tries(name, act):
    try: said[name] = act()
    except Exception as error: said[name] = type(error).__name__
tries("proxied", lambda: urllib.request.urlopen(f"http://localhost:{port}/", timeout=30).read().decode())
tries("direct", lambda: socket.create_connection(("127.0.0.1", port), 2) and "ESCAPED")
tries("public", lambda: socket.create_connection(("93.184.216.34", 80), 2) and "ESCAPED")
tries("udp", lambda: socket.socket(2, 2).sendto(b"x", ("8.8.8.8", 53)) and "ESCAPED")
tries("name", lambda: socket.gethostbyname("example.com") and "ESCAPED")
tries("children", lambda: os.waitpid(-1, os.WNOHANG) and "a child that it did not start")
tries("env", lambda: os.environ["KEY"])
tries("file", lambda: "ESCAPED" if os.path.exists(os.path.expanduser("~/secrets.json")) else "")
print(json.dumps(said))
"""


async def test_a_program_behind_its_walls_has_the_proxy_and_nothing_else(tmp_path: Path) -> None:
    SecretStore(Home(tmp_path).secrets).put("KEY", Secret(CANARY, ("localhost",)))
    with anyio.fail_after(60):
        async with world(
            tmp_path, hosts=("localhost:{port}", "localhost"), private=("localhost:{port}",)
        ) as (kernel, _, web):
            process = kernel.table.find_named("eve")
            assert process is not None
            gate = kernel.gate(process.pid)
            ran = await run_tool(gate, "python", code=SOURCE, input=str(web.port))
            said = json.loads(json.loads(ran.text)["output"])
    assert said.pop("proxied") == "hello"
    assert said.pop("env") == "aios-secret:KEY"
    assert said.pop("children") == "ChildProcessError"
    assert "ESCAPED" not in str(said)
    assert CANARY not in ran.text


def test_there_are_enough_of_them() -> None:
    assert 2 * len((*INWARD, *FORBIDDEN)) + len(SPLIT) >= 100
