"""Tells a web server of each question and of what became of it, signed, so that a human somewhere else can be told.

    POST approvals.webhook_url      X-AIOS-Timestamp: SECONDS      X-AIOS-Signature: sha256=HMAC-SHA256(secret, SECONDS "." BODY)

No argument of a call leaves the machine by this way, no question in words and no answer in words, nor a digest of them, which could be guessed
back. Whoever is told looks at the rest with `aios approvals show`. A server that does not answer is asked a few times, and delays nobody.
"""

import hmac
import logging

import anyio
import httpx
import msgspec
from msgspec import Struct

from aios.abi.approvals import HUMAN_ASK, Approval
from aios.errors import ConfigError, KernelBug, edge
from aios.kernel.clock import Clock
from aios.weburl import is_sendable

DELAYS_S = (1.0, 2.0, 4.0, 8.0)
"""Between the tries; after the last of them the message is given up."""
TIMEOUT_S = 10.0
"""Of a whole try, until the head of the reply is there."""
MAX_WAITING = 256
"""Messages that wait for a slow server; one more is dropped, and counted."""
AGAIN = frozenset({408, 425, 429})
_log = logging.getLogger(__name__)


class Notice(Struct, frozen=True):
    """What is told of a question."""

    id: int
    state: str
    pid: int
    name: str
    program: str
    action: str
    resource: str
    effect: str
    is_tainted: bool
    asked_unix_s: float
    expires_unix_s: float
    answer: str = ""
    """How an act was answered; words are left out."""
    by: str = ""


class Webhook:
    """Sends notices, one after the other.

    Args:
        url: Where to.
        secret: The key of the signature.
        clock: For the time in it.
        delays_s: Between tries.
        timeout_s: Of one try.

    Raises:
        ConfigError: There is no secret, or the address is none.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        clock: Clock,
        *,
        delays_s: tuple[float, ...] = DELAYS_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not secret:
            raise ConfigError(
                "approvals.webhook_url is set, and the variable that approvals.webhook_secret_env names is not",
                hint="put the secret that its server knows into that variable",
            )
        if not is_sendable(url):
            raise ConfigError(
                "approvals.webhook_url is no address to which a request can be sent",
                hint="it is http(s)://HOST/PATH or http(s)://HOST:PORT/PATH, with a port from 1 to 65535",
            )
        self._url = url
        self._secret = secret.encode()
        self._clock = clock
        self._delays_s = delays_s
        self._timeout_s = timeout_s
        self._send, self._receive = anyio.create_memory_object_stream[Notice](MAX_WAITING)
        self.n_sent = self.n_failed = self.n_dropped = 0

    def put(self, row: Approval) -> None:
        """Tell of a question, soon; never waits."""
        try:
            self._send.send_nowait(notice_of(row))
        except anyio.WouldBlock:
            self.n_dropped += 1

    def close(self) -> None:
        """Send nothing any more."""
        self._send.close()
        self._receive.close()

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        async with (
            self._send,
            self._receive,
            httpx.AsyncClient(timeout=self._timeout_s, trust_env=False) as client,
        ):
            async for notice in self._receive:
                await self._deliver(client, msgspec.json.encode(notice))

    async def _deliver(self, client: httpx.AsyncClient, body: bytes) -> None:
        status = 0
        for delay_s in (*self._delays_s, None):
            status = await self._try(client, body)
            if 200 <= status < 300:
                self.n_sent += 1
                return
            is_final = 300 <= status < 500 and status not in AGAIN
            if is_final or delay_s is None:
                break
            await anyio.sleep(delay_s)
        self.n_failed += 1
        _log.warning("the webhook of approvals took no notice: status %d", status)

    async def _try(self, client: httpx.AsyncClient, body: bytes) -> int:
        """The status of one try; 0 if there was none."""
        stamp = str(int(self._clock.unix_s()))
        headers = {
            "content-type": "application/json",
            "x-aios-timestamp": stamp,
            "x-aios-signature": signature(self._secret, stamp, body),
        }
        with anyio.move_on_after(self._timeout_s):
            # The text of an error may hold the address, which may hold a token.
            try:
                with edge("the webhook of approvals", httpx.HTTPError):
                    async with client.stream(
                        "POST", self._url, content=body, headers=headers
                    ) as reply:
                        return reply.status_code  # what else it says may be without end
            except httpx.HTTPError:
                return 0
            except KernelBug as bug:
                _log.error("the webhook of approvals failed: %s", type(bug.__cause__).__name__)
                return 0
        return 0

    def statistics(self) -> dict[str, int]:
        """How many were sent, given up, and dropped unsent."""
        return {"n_sent": self.n_sent, "n_failed": self.n_failed, "n_dropped": self.n_dropped}


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """What shows that a notice is ours, and when it was sent."""
    return f"sha256={hmac.digest(secret, stamp.encode() + b'.' + body, 'sha256').hex()}"


def notice_of(row: Approval) -> Notice:
    """What is told of a question: who asks, for what kind of act, and how it stands."""
    is_act = row.action != HUMAN_ASK
    return Notice(
        id=row.id,
        state=row.state.value,
        pid=row.pid,
        name=row.name,
        program=row.program,
        action=row.action,
        resource=row.resource,
        effect=row.effect,
        is_tainted=row.is_tainted,
        asked_unix_s=row.asked_unix_s,
        expires_unix_s=row.expires_unix_s,
        answer=row.said if is_act else "",
        by=row.by,
    )
