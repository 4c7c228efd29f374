"""One large file over HTTP into a `.part` file: resumed where it broke off, bounded, never mixed from two versions.

Beside the part stands a record of what it is a part of and of the validator (ETag or date) that the server gave. Without
a validator or a checksum to verify the whole by, or if the file has changed since, the download begins anew.
"""

import os
import shutil
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from re import fullmatch
from typing import Final
from urllib.parse import urlsplit

import anyio
import certifi
import httpx
import msgspec
from msgspec import Struct

from aios.engine.models import Progress, record_path
from aios.errors import ConfigError, InvalidCall, ModelMissing, ResourceExhausted, TooLarge
from aios.readers import from_json
from aios.weburl import is_sendable

CHUNK_BYTES: Final = 1 << 20
MAX_REDIRECTS: Final = 10
MAX_DELAY_S: Final = 30.0
CA_VARIABLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Limits(Struct, frozen=True):
    """What a download may take; the defaults suit models of any size on a poor line."""

    max_bytes: int = 64 << 30
    reserve_bytes: int = 256 << 20
    """Room that must be left on the disk."""
    n_retries: int = 4
    """Tries in a row that may bring nothing; each that brings `CHUNK_BYTES` starts the count anew."""
    backoff_s: float = 0.5
    """Pause before the first retry; doubled with each."""
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 60.0


class Remote(Struct, frozen=True):
    """A file to fetch, and what is known of it."""

    url: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    size_bytes: int | None = None
    sha256: str | None = None
    hint: str = ""
    """What to do when the server refuses it."""

    @property
    def label(self) -> str:
        """The URL without what may be secret: user, password and query."""
        return redacted(self.url)


class _PartRecord(msgspec.Struct, frozen=True):
    """What a part belongs to. The URL itself is not kept: it may be signed."""

    url_sha256: str
    validator: str


class _Broken(Exception):
    """This try failed in a way that the next may not."""

    def __init__(self, reason: str, delay_s: float = 0.0) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


def open_client(limits: Limits, *, allow_http: bool) -> httpx.AsyncClient:
    """An HTTP client that speaks https, and plain http only with this machine unless `allow_http`."""

    async def check(request: httpx.Request) -> None:
        check_url(str(request.url), allow_http=allow_http)

    try:
        return httpx.AsyncClient(
            verify=_trust(),
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=httpx.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s),
            headers={"User-Agent": "aios-pull", "Accept-Encoding": "identity"},
            event_hooks={"request": [check]},  # runs for each redirect too
        )
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"a proxy or certificates that the environment names cannot be used ({type(error).__name__})",
            hint="look at ALL_PROXY, HTTP_PROXY, HTTPS_PROXY, NO_PROXY, PIP_CERT and SSL_CERT_FILE; for a SOCKS proxy install socksio",
        ) from error


def check_url(url: str, *, allow_http: bool) -> None:
    """Refuse a URL that is neither https nor, on this machine or with leave, http.

    Raises:
        InvalidCall: It is another.
    """
    if url.lower().startswith(("http://", "https://")) and not is_sendable(url):
        raise InvalidCall(
            "no request can be sent to this address", hint="look at its host and port"
        )
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and (allow_http or _is_loopback(parts.hostname or "")):
        return
    raise InvalidCall(
        f"{redacted(url)} is not fetched: models come over https only",
        hint="use https, or download the file yourself and `aios pull PATH`",
    )


def redacted(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class Downloader:
    """Fetches files with one client.

    Args:
        client: From `open_client`.
        limits: What a download may take.
        progress: Called after each chunk, in the event loop.
    """

    def __init__(
        self, client: httpx.AsyncClient, limits: Limits, progress: Callable[[Progress], None]
    ) -> None:
        self._client = client
        self._limits = limits
        self._progress = progress

    async def fetch(self, remote: Remote, part: Path) -> str | None:
        """Fetch a file whole into `part`. When it fails or is cancelled, what came stays for the next time.

        Returns: The sha256 of the file if the server tells it (as Hugging Face does), else None.

        Raises:
            InvalidCall: It, or what it redirects to, must not be fetched.
            ModelMissing: The server does not have it, refuses it, or cannot be reached.
            ResourceExhausted: The disk has no room.
            TooLarge: It is larger than the limit.
        """
        n_failures = 0
        while True:
            n_before = _size(part)
            try:
                return await self._attempt(remote, part)
            except (httpx.TransportError, _Broken) as error:
                has_come = _size(part) >= n_before + CHUNK_BYTES
                n_failures = 1 if has_come else n_failures + 1
                reason = str(error) or type(error).__name__
                if n_failures > self._limits.n_retries or isinstance(
                    error, httpx.UnsupportedProtocol
                ):
                    raise self._failed(remote, reason, _size(part)) from error
                delay_s = max(
                    self._limits.backoff_s * 2 ** (n_failures - 1), getattr(error, "delay_s", 0.0)
                )
            except httpx.TooManyRedirects as error:
                raise self._failed(remote, str(error), _size(part)) from error
            self._progress(Progress("download", _size(part), note=f"trying again: {reason}"))
            await anyio.sleep(min(delay_s, MAX_DELAY_S))

    def _failed(self, remote: Remote, reason: str, n_bytes: int) -> ModelMissing:
        kept = f"; {n_bytes} bytes are kept for the next try" if n_bytes else ""
        return ModelMissing(
            f"{remote.label} cannot be downloaded: {reason}{kept}",
            hint="check the network, then run the same `aios pull` again: it goes on where it was",
        )

    async def _attempt(self, remote: Remote, part: Path) -> str | None:
        offset, headers = _resumption(remote, part)
        async with self._client.stream(
            "GET", remote.url, headers={**remote.headers, **headers}
        ) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return self._after_416(response, part)
            self._check_status(response, remote)
            start, total = _extent(response, offset, part, headers.get("If-Range", ""))
            self._check_size(total, start, remote, part)
            if start == 0:
                discard(part)  # before the new record: old bytes must never stand beside it
            _remember(remote, response, part)
            await self._receive(response, part, start=start, total=total)
        if total is not None and _size(part) != total:
            raise _Broken(f"it ended after {_size(part)} of {total} bytes")
        return _told_sha256(response)

    async def _receive(
        self, response: httpx.Response, part: Path, *, start: int, total: int | None
    ) -> None:
        n_bytes = n_told = start
        async with await anyio.open_file(part, "ab") as file:
            await file.truncate(start)
            # Chunks as they come: a larger buffer would be lost, and with it all progress, on a line that often breaks.
            async for chunk in response.aiter_raw():
                await file.write(chunk)
                n_bytes += len(chunk)
                if n_bytes > self._limits.max_bytes:
                    raise self._too_large(n_bytes)
                if n_bytes - n_told >= CHUNK_BYTES or n_bytes == total:
                    n_told = n_bytes
                    self._progress(Progress("download", n_bytes, total))

    def _check_status(self, response: httpx.Response, remote: Remote) -> None:
        status = response.status_code
        if status in (200, 206):
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise ModelMissing(f"{remote.label} comes compressed ({encoding}), unasked")
            return
        if status in _RETRIED:
            raise _Broken(f"the server answers {status}", _retry_after_s(response))
        reasons = {
            401: "it wants you to authenticate (401)",
            403: "you may not have it (403)",
            404: "it is not there (404)",
            410: "it is gone (410)",
        }
        reason = reasons.get(status, f"the server answers {status}")
        raise ModelMissing(
            f"{remote.label}: {reason}", hint=remote.hint or "check the address in a browser"
        )

    def _check_size(self, total: int | None, start: int, remote: Remote, part: Path) -> None:
        if total is None:
            return
        if total > self._limits.max_bytes:
            raise self._too_large(total)
        if remote.size_bytes not in (None, total):
            raise ModelMissing(
                f"{remote.label} has {total} bytes, but should have {remote.size_bytes}",
                hint="another file is published there now",
            )
        free = shutil.disk_usage(part.parent).free
        if total - start + self._limits.reserve_bytes > free:
            raise ResourceExhausted(
                f"{remote.label} needs {total - start} bytes more; {part.parent} has {free} free",
                hint="make room, or set AIOS_HOME to another disk",
            )

    def _too_large(self, n_bytes: int) -> TooLarge:
        return TooLarge(
            f"the file has at least {n_bytes} bytes; the limit is {self._limits.max_bytes}"
        )

    def _after_416(self, response: httpx.Response, part: Path) -> str | None:
        """The server has nothing beyond the part: it is whole, or it is of another file."""
        found = fullmatch(r"bytes \*/(\d{1,18})", response.headers.get("Content-Range", ""))
        if found and int(found[1]) == _size(part):
            return _told_sha256(response)
        discard(part)
        raise _Broken("what was there of it does not fit the file any more")


def discard(part: Path) -> None:
    """Delete a part and its record."""
    part.unlink(missing_ok=True)
    record_path(part).unlink(missing_ok=True)


def _resumption(remote: Remote, part: Path) -> tuple[int, dict[str, str]]:
    """Where to go on, and the headers that ask for it."""
    offset = _size(part)
    try:
        record = from_json(record_path(part).read_bytes(), _PartRecord)
    except (OSError, msgspec.MsgspecError):
        return 0, {}
    if offset == 0 or record.url_sha256 != _digest(remote.url):
        return 0, {}
    if record.validator:
        return offset, {"Range": f"bytes={offset}-", "If-Range": record.validator}
    # Whatever comes is verified as a whole.
    return (offset, {"Range": f"bytes={offset}-"}) if remote.sha256 else (0, {})


def _remember(remote: Remote, response: httpx.Response, part: Path) -> None:
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag
    record = _PartRecord(_digest(remote.url), validator)
    record_path(part).write_bytes(msgspec.json.encode(record))


def _extent(
    response: httpx.Response, offset: int, part: Path, validator: str
) -> tuple[int, int | None]:
    """Where the body begins in the file, and how long the whole file is, if that is known.

    Some servers and proxies take a range and leave its condition out of account, so what they say of the version is compared.
    """
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        found = fullmatch(
            r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if not found or int(found[1]) != offset:
            discard(part)
            raise _Broken("the server sent another part than was asked for")
        name = "ETag" if validator[:1] == '"' else "Last-Modified"
        if validator and response.headers.get(name, validator) != validator:
            discard(part)
            raise _Broken("another version of the file is published there now")
        return offset, None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _told_sha256(response: httpx.Response) -> str | None:
    """Hugging Face names the checksum of a large file in the answer that redirects to it."""
    for answer in (*response.history, response):
        told = answer.headers.get("X-Linked-Etag", "").strip('"')
        if fullmatch(r"[0-9a-f]{64}", told):
            return str(told)
    return None


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() and len(value) < 6 else 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trust() -> ssl.SSLContext:
    """The system's certificates (certifi's if there are none), and those that pip was told of, for a company's proxy."""
    named = (os.environ.get(name, "") for name in CA_VARIABLES)
    return _trust_in(tuple(file for file in named if file and Path(file).is_file()))


@cache
def _trust_in(files: tuple[str, ...]) -> ssl.SSLContext:
    """Cost: 60 to 120 ms, so all clients share it."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509"]:
        context.load_verify_locations(certifi.where())
    for file in files:
        context.load_verify_locations(file)
    return context
