"""One endpoint over HTTP/1.1: requests with limits of time and size, retries, and the governor's permission.

Body and head are bounded, redirects are not followed, answers are not decompressed, and the key stands in one header only.
"""

import random
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import anyio
import httpx
import msgspec

from aios.abi.types import JsonObject
from aios.config import EngineConfig
from aios.engine.remote.governor import Governor
from aios.engine.remote.problems import (
    CONNECT,
    DROPPED,
    SILENT,
    TLS,
    Problem,
    Site,
    error_of,
    read_problem,
)
from aios.engine.remote.sse import SseParser
from aios.errors import ConfigError, EngineFailed, InvalidCall
from aios.weburl import is_sendable

CONNECT_TIMEOUT_S = 10.0
ERROR_BODY_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
FINISH_TIMEOUT_S = 0.2
MAX_ERROR_BYTES = 64 << 10
MAX_STREAM_BYTES = 256 << 20
MAX_PAUSE_S = 30.0
"""A longer `Retry-After` is told to the caller instead of waited for."""
MAX_MENDS = 16
"""Times that one request is put otherwise and sent again at once: there are fewer fields that are left out or renamed."""
FIRST_PAUSE_S = 0.5
SPARE_CONNECTIONS = 4
"""Beyond one for each slot: for embeddings, tokens and the list of models."""
CHARS_A_TOKEN = 4

Body = Callable[[], JsonObject]
Mend = Callable[[Problem], bool]


@dataclass
class Patience:
    """Retries that one call still has."""

    n_left: int
    n_used: int = 0


class Answer:
    """A successful answer whose body is still to be read. Holds a place at the governor until `aclose`."""

    def __init__(self, response: httpx.Response, governor: Governor) -> None:
        self.headers = response.headers
        self.status = response.status_code
        self.is_success = response.is_success
        self._response = response
        self._governor = governor
        self._is_closed = False

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, not decompressed."""
        return self._response.aiter_raw()

    async def aclose(self) -> None:
        """Give up the connection and the place; a body that was not read to its end is cut off. Twice is nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._governor.leave()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_TIMEOUT_S):
            await self._response.aclose()


class EventStream:
    """The server-sent events of an answer."""

    def __init__(self, answer: Answer, timeout_s: float) -> None:
        self._answer = answer
        self._timeout_s = timeout_s
        self._chunks = answer.chunks()
        self._parser = SseParser()
        self._n_bytes = 0

    async def read(self) -> tuple[list[str], Problem | None, bool]:
        """Wait for whole lines and return the events in them, why the stream broke off, and whether it is over.

        The silence that is allowed ends with a whole line, be it a comment: half a line is no sign of life.

        Raises:
            EngineFailed: It is over a limit of size.
        """
        n_lines = self._parser.n_lines
        try:
            with anyio.fail_after(self._timeout_s):
                while self._parser.n_lines == n_lines:
                    chunk = await anext(self._chunks, None)
                    if chunk is None:
                        return self._parser.flush(), None, True
                    self._n_bytes += len(chunk)
                    if self._n_bytes > MAX_STREAM_BYTES:
                        raise EngineFailed(
                            f"the endpoint sent a stream of over {MAX_STREAM_BYTES} bytes"
                        )
                    events = self._parser.feed(chunk)
                    if events:
                        return events, None, False
        except TimeoutError:
            return [], Problem(0, f"nothing came for {self._timeout_s:g} s", SILENT), True
        except httpx.HTTPError as error:
            return [], _problem_of(error, self._timeout_s), True
        return [], None, False

    async def finish(self) -> None:
        """Read what follows the last event, which is mostly nothing: only then can the connection be used again."""
        with anyio.move_on_after(FINISH_TIMEOUT_S):
            try:
                while await anext(self._chunks, None) is not None:
                    pass
            except httpx.HTTPError:
                pass  # all that was asked for is here

    async def aclose(self) -> None:
        """As `Answer.aclose`."""
        await self._answer.aclose()


class Endpoint:
    """An OpenAI-compatible base URL and the connections to it.

    Args:
        config: Address, limits, time-outs.
        api_key: Sent as a bearer token; None sends none.
        governor: Shared by all who use this address and key.
        transport: Instead of the network, for tests and special connections.

    Raises:
        ConfigError: The base URL or the key cannot be used.
    """

    def __init__(
        self,
        *,
        config: EngineConfig,
        api_key: str | None,
        governor: Governor,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url, host = _checked_url(config.base_url)
        self.site = Site(host, config.api_key_env, _checked_key(api_key, config.api_key_env))
        self.governor = governor
        self.is_loopback = _is_loopback(self.base_url)
        self._config = config
        self._client = self._open_client(transport)

    @property
    def root_url(self) -> str:
        """The base URL without its `/v1`: where servers keep what OpenAI does not have."""
        return self.base_url.removesuffix("/v1")

    @property
    def sends_key_in_clear(self) -> bool:
        """Whether the key can be read on its way."""
        return (
            bool(self.site.api_key) and self.base_url.startswith("http://") and not self.is_loopback
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def try_send(
        self,
        method: str,
        url: str,
        *,
        body: Body | None = None,
        mend: Mend | None = None,
        patience: Patience | None = None,
    ) -> Answer | Problem:
        """Send a request, again if need be, until the head of a good answer is here, or why there is none.

        Args:
            method: HTTP method.
            url: Absolute, below the base URL or its root.
            body: Makes the JSON body; called anew after `mend` has learnt something.
            mend: Told why the endpoint refused; True to try again at once, `MAX_MENDS` times at most.
            patience: Retries that are left; the configured number when None.

        Returns: An answer, which the caller closes, or the last problem.

        Raises:
            RateLimited: The governor permits no request for a long time.
        """
        patience = patience or Patience(self._config.n_retries)
        n_mends = 0
        while True:
            answer = await self._attempt(method, url, body)
            if isinstance(answer, Answer):
                return answer
            if mend is not None and n_mends < MAX_MENDS and mend(answer):
                n_mends += 1
            elif not await self.retry(answer, patience):
                return answer

    async def retry(self, problem: Problem, patience: Patience) -> bool:
        """Wait, then True for another try; False at once if none makes sense or is left."""
        if not problem.is_transient or patience.n_left <= 0:
            return False
        pause_s = problem.retry_after_s
        if pause_s is None:
            pause_s = FIRST_PAUSE_S * 2**patience.n_used * random.uniform(0.5, 1)  # noqa: S311 - spreads, hides nothing
        if pause_s > MAX_PAUSE_S or not self.governor.rate.take_retry():
            return False
        patience.n_left -= 1
        patience.n_used += 1
        await anyio.sleep(pause_s)
        return True

    async def try_fetch(
        self,
        method: str,
        url: str,
        *,
        max_bytes: int,
        body: Body | None = None,
        mend: Mend | None = None,
    ) -> bytes | Problem:
        """`try_send`, and the whole body of the answer.

        Raises:
            EngineFailed: The body is over `max_bytes`.
            RateLimited: As `try_send`.
        """
        answer = await self.try_send(method, url, body=body, mend=mend)
        if isinstance(answer, Problem):
            return answer
        parts: list[bytes] = []
        n_bytes = 0
        try:
            async for chunk in answer.chunks():
                n_bytes += len(chunk)
                if n_bytes > max_bytes:
                    raise EngineFailed(f"{self.site.host} sent an answer of over {max_bytes} bytes")
                parts.append(chunk)
        except httpx.HTTPError as error:
            return _problem_of(error, self._config.timeout_s)
        finally:
            await answer.aclose()
        return b"".join(parts)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        max_bytes: int,
        body: Body | None = None,
        mend: Mend | None = None,
    ) -> bytes:
        """`try_fetch`, with the problem raised.

        Raises:
            AiosError: See `problems.error_of`.
        """
        answer = await self.try_fetch(method, url, max_bytes=max_bytes, body=body, mend=mend)
        if isinstance(answer, Problem):
            raise error_of(answer, self.site)
        return answer

    def _open_client(self, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
        config = self._config
        n_connections = config.n_slots + SPARE_CONNECTIONS
        headers = {"Accept-Encoding": "identity", "User-Agent": "aios"}
        if self.site.api_key:
            headers["Authorization"] = f"Bearer {self.site.api_key}"
        try:
            return httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(
                    config.timeout_s, connect=min(config.timeout_s, CONNECT_TIMEOUT_S)
                ),
                limits=httpx.Limits(
                    max_connections=n_connections, max_keepalive_connections=n_connections
                ),
                transport=transport,
                # Without TLS no certificates are read: 60 ms.
                verify=urlsplit(self.base_url).scheme != "http",
                trust_env=not self.is_loopback,  # the proxy of a company is not the way to one's own machine
                follow_redirects=False,
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # Its text may hold the proxy's password.
            raise ConfigError(
                f"the environment names a proxy or certificates that cannot be used ({type(error).__name__})",
                hint="look at ALL_PROXY, HTTP_PROXY, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE;"
                " a SOCKS proxy needs the package socksio",
            ) from error

    async def _attempt(self, method: str, url: str, body: Body | None) -> Answer | Problem:
        content = None if body is None else _encoded(body())
        headers = None if body is None else {"Content-Type": "application/json"}
        request = self._client.build_request(method, url, content=content, headers=headers)
        await self.governor.enter(1 + len(content or b"") // CHARS_A_TOKEN)
        answer: Answer | None = None
        try:
            answer = Answer(await self._client.send(request, stream=True), self.governor)
        except httpx.HTTPError as error:
            return _problem_of(error, self._config.timeout_s)
        finally:
            if answer is None:
                self.governor.leave()
        if answer.is_success:
            self.governor.succeed(answer.headers)
            return answer
        try:
            problem = read_problem(answer.status, answer.headers, await _head_of(answer))
        finally:
            await answer.aclose()
        if problem.status == 429:
            self.governor.throttle(answer.headers, problem.retry_after_s)
        return problem


async def _head_of(answer: Answer) -> bytes:
    """The beginning of an answer that says what went wrong; as much as came in time."""
    parts: list[bytes] = []
    n_bytes = 0
    with anyio.move_on_after(ERROR_BODY_TIMEOUT_S):
        try:
            async for chunk in answer.chunks():
                parts.append(chunk)
                n_bytes += len(chunk)
                if n_bytes >= MAX_ERROR_BYTES:
                    break
        except httpx.HTTPError:
            pass  # the status says enough
    return b"".join(parts)[:MAX_ERROR_BYTES]


def _problem_of(error: httpx.HTTPError, timeout_s: float) -> Problem:
    """What an exception of httpx means. Its text may be empty, and never holds more than host and reason."""
    if isinstance(error, httpx.ConnectTimeout):
        return Problem(0, f"no connection within {min(timeout_s, CONNECT_TIMEOUT_S):g} s", CONNECT)
    if isinstance(error, httpx.ConnectError):
        is_tls = isinstance(
            error.__cause__ and error.__cause__.__cause__, ssl.SSLError
        ) or "SSL" in str(error)
        return Problem(0, str(error) or "connection refused", TLS if is_tls else CONNECT)
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return Problem(0, f"no answer within {timeout_s:g} s", SILENT)
    if isinstance(error, httpx.PoolTimeout):
        return Problem(0, f"no free connection within {timeout_s:g} s", SILENT)
    return Problem(0, str(error) or type(error).__name__, DROPPED)


def _encoded(body: JsonObject) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, TypeError, OverflowError) as error:
        raise InvalidCall(f"the request cannot be written as JSON: {error}") from error


def _checked_url(base_url: str) -> tuple[str, str]:
    """The base URL without a slash at its end, and the part of it that messages show."""
    url = base_url.strip().rstrip("/")
    if not is_sendable(url):
        raise ConfigError(
            "`engine.base_url` is not an http(s) URL",
            hint="give the endpoint's, such as http://localhost:8080/v1",
        )
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "`engine.base_url` holds a user, a password, a query or a fragment",
            hint="give the address only; the key comes from the environment (`engine.api_key_env`)",
        )
    return url, parts.netloc


def _checked_key(api_key: str | None, key_env: str) -> str | None:
    key = (api_key or "").strip()
    if not all("!" <= char <= "~" for char in key):
        raise ConfigError(
            f"the key in {key_env} holds blanks or characters that are not ASCII",
            hint="was it pasted whole, once?",
        )
    return key or None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
