import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.abc
import httpx
import msgspec
import pytest
from tests.kernel.approvals.test_book import question

from aios.abi.approvals import HUMAN_ASK
from aios.errors import ConfigError
from aios.kernel.approvals import book
from aios.kernel.clock import SystemClock
from aios.kernel.waitqueue import WaitQueue
from aios.server.webhook import MAX_WAITING, Webhook, notice_of

pytestmark = pytest.mark.anyio

SECRET = "a key that both know"  # noqa: S105 - a test's
FAST = (0.001, 0.001)


@dataclass
class Receiver:
    """A server that answers with one status after the other, then with 200, and keeps what it was told."""

    statuses: list[int]
    url: str = ""
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    changed: WaitQueue = field(default_factory=WaitQueue)

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive()
            head, _, body = data.partition(b"\r\n\r\n")
            lines = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
            headers = {name.lower(): value for name, _, value in lines}
            while len(body) < int(headers["content-length"]):
                body += await stream.receive()
            self.seen.append((headers, body))
            status = self.statuses.pop(0) if self.statuses else 200
            await stream.send(
                f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self.changed.wake_all()

    async def wait_seen(self, n: int) -> None:
        while len(self.seen) < n:
            await self.changed.wait()


@asynccontextmanager
async def told(*statuses: int) -> AsyncIterator[tuple[Receiver, Webhook]]:
    with anyio.fail_after(30):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django here
        receiver = Receiver(list(statuses), f"http://127.0.0.1:{port}/hook")
        webhook = Webhook(receiver.url, SECRET, SystemClock(), delays_s=FAST)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, receiver.serve)
            tasks.start_soon(webhook.run)
            yield receiver, webhook
            tasks.cancel_scope.cancel()


async def test_a_notice_is_signed_and_tried_again_until_it_is_taken() -> None:
    async with told(500, 429) as (receiver, webhook):
        webhook.put(question())
        await receiver.wait_seen(3)
        for headers, body in receiver.seen:
            text = headers["x-aios-timestamp"].encode() + b"." + body
            expected = hmac.digest(SECRET.encode(), text, "sha256").hex()
            assert headers["x-aios-signature"] == f"sha256={expected}"
        assert len({body for _, body in receiver.seen}) == 1


async def test_tries_are_bounded_and_a_refusal_is_final() -> None:
    async with told(500, 500, 500, 404) as (receiver, webhook):
        for number in (1, 2, 3):
            webhook.put(question(number=number))
        await receiver.wait_seen(5)
        ids = [msgspec.json.decode(body)["id"] for _, body in receiver.seen]
        assert ids == [1, 1, 1, 2, 3]


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 200 x\r\ncontent-length: 9000000000\r\n\r\n", b"HTTP/1.1 "]
)
async def test_a_reply_without_end_is_not_read_and_holds_no_other_notice_up(begin: bytes) -> None:
    heads, changed = list[bytes](), WaitQueue()

    async def drip(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            changed.wake_all()
            await stream.send(begin)
            with suppress(anyio.BrokenResourceError):
                while True:
                    await stream.send(b"1")
                    await anyio.sleep(0.001)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django here
    url = f"http://127.0.0.1:{port}/"
    webhook = Webhook(url, SECRET, SystemClock(), delays_s=(), timeout_s=0.2)
    with anyio.fail_after(30):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, drip)
            tasks.start_soon(webhook.run)
            for number in (1, 2, 3):
                webhook.put(question(number=number))
            while len(heads) < 3:
                await changed.wait()
            tasks.cancel_scope.cancel()


async def test_what_waits_is_bounded_and_nobody_is_delayed() -> None:
    webhook = Webhook("http://127.0.0.1:9/", SECRET, SystemClock())
    for _ in range(MAX_WAITING + 3):
        webhook.put(question())
    assert webhook.statistics() == {"n_sent": 0, "n_failed": 0, "n_dropped": 3}
    webhook.close()


def test_nothing_that_was_written_or_said_is_told_nor_can_be_guessed_back() -> None:
    act = msgspec.structs.replace(question(digest="canary"), arguments="canary", why="canary")
    words = msgspec.structs.replace(act, action=HUMAN_ASK, choices=())
    said = book.answered(words, "canary", by="owner", unix_s=1.0)
    for row in (act, words, said):
        assert b"canary" not in msgspec.json.encode(notice_of(row))
    assert notice_of(book.answered(act, "once", by="owner", unix_s=1.0)).answer == "once"


def test_without_a_secret_there_is_no_webhook() -> None:
    with pytest.raises(ConfigError, match=r"approvals\.webhook_secret_env"):
        Webhook("http://127.0.0.1/", "", SystemClock())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "https://h:abc/", "http://[::1/",
        "http://xn--a.example/", "https:///hook", "http://a..b/", f"http://{'a' * 64}.example/",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ConfigError, match=r"approvals\.webhook_url") as refused:
        Webhook(url, SECRET, SystemClock())
    assert url not in str(refused.value), "it may hold a token"


async def test_a_bug_in_a_try_is_a_try_that_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon lives on, and sends what comes next."""
    stream, wrongs = (
        httpx.AsyncClient.stream,
        [OverflowError("port"), ExceptionGroup("x", [OSError()])],
    )

    def wrong(client: httpx.AsyncClient, method: str, url: str, **more: object) -> object:
        if wrongs:
            raise wrongs.pop()
        return stream(client, method, url, **more)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(httpx.AsyncClient, "stream", wrong)
    async with told() as (receiver, webhook):
        webhook.put(question())
        await receiver.wait_seen(1)
    assert not wrongs
    assert "OverflowError" in caplog.text
