"""`http_fetch`: a page or a file of the web as text, from hosts that the owner allows, and never from this machine or its net.

Each hop of a redirect is judged anew, and each connection is made to the very address that was judged, so a name that resolves to
something else the second time gains nothing. What comes is bounded in bytes and time; it is asked for uncompressed.
"""

import codecs
import re
from dataclasses import dataclass, field
from functools import partial
from ssl import SSLContext
from urllib.parse import urljoin
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from msgspec import Struct

from aios import __version__
from aios.abi.tools import Traits
from aios.config import ToolsConfig
from aios.errors import ToolFailed
from aios.kernel.egress.targets import Target, check_host, is_listed, is_public, read_url
from aios.kernel.tools.builtin.html_text import text_of
from aios.kernel.tools.builtin.making import choice, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

MAX_REDIRECTS = 5
TIMEOUT_S = 30.0
MAX_FETCHES = 16
"""At once, for a child of init and all that it started."""
MAX_LOOKUPS = 4
"""Names that are looked up at once, for a child of init and all that it started: one whose servers do not answer keeps its place."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
TEXTUAL = ("json", "xml", "javascript", "yaml", "x-ndjson", "csv", "toml")
CHARSETS = re.compile(
    r"ascii|utf-(8|16|32)(-[a-z]+)?|iso8859-\d+|cp\d+|koi8-[a-z]|gb\w+|big5\w*|shift_jis\w*|euc_\w+|iso2022_\w+"
)
"""Codecs that pages are in. Python has others, some of which take time by the square of the length, or read no text at all."""
HEADERS = {
    "User-Agent": f"aios/{__version__}",
    "Accept": "text/html, text/*, application/json, */*;q=0.5",
    "Accept-Encoding": "identity",
}


class Fetched(Struct, frozen=True):
    """What a host answered."""

    url: str
    status: int
    content_type: str
    body: bytes


@dataclass
class Fetcher:
    """Fetches for processes within what they may.

    Args:
        config: `fetch_hosts` may be spoken to, `fetch_private_hosts` may be at private addresses; `max_fetch_bytes` bounds a body.
    """

    config: ToolsConfig
    n_fetched: int = field(default=0, init=False)
    _certificates: SSLContext | None = field(default=None, init=False)
    _lookups: WeakValueDictionary[str, anyio.CapacityLimiter] = field(
        default_factory=WeakValueDictionary, init=False
    )

    async def fetch(self, job: Job, url: str) -> Fetched:
        """Get an address, following redirects. When the caller is stopped, the hop is broken off and made again at `cont`.

        Raises:
            AccessDenied: A host on the way is not allowed, or is at a private address.
            ToolFailed: It could not be reached, or sent too much.
        """
        for _ in range(MAX_REDIRECTS + 1):
            target = read_url(url)
            check_host(target, (self.config.fetch_hosts, *job.run.process.fetch_lists))
            found, location = await self._hop(job, target)
            if not location:
                self.n_fetched += 1
                return found
            url = _joined(url, location)
        raise ToolFailed(f"more than {MAX_REDIRECTS} redirects", hint="give the last address")

    async def _hop(self, job: Job, target: Target) -> tuple[Fetched, str]:
        while True:
            await job.run.runnable()
            with anyio.CancelScope() as scope:

                def hold(is_stopped: bool, scope: anyio.CancelScope = scope) -> None:
                    if is_stopped:
                        scope.cancel()

                with job.run.holding(hold):
                    family = job.run.process.family
                    lookups = self._lookups.setdefault(family, anyio.CapacityLimiter(MAX_LOOKUPS))
                    return await self._get(target, lookups)

    async def _get(self, target: Target, lookups: anyio.CapacityLimiter) -> tuple[Fetched, str]:
        """One request. Returns: what came, and where it sends us, if it does."""
        from aios.kernel.egress.connecting import (  # noqa: PLC0415 - start-up time: httpcore takes 40 ms
            request,
            trusted_certificates,
        )

        self._certificates = self._certificates or trusted_certificates()
        is_private = is_listed(target, self.config.fetch_private_hosts)
        answer = await request(
            target,
            HEADERS,
            certificates=self._certificates,
            may_reach=lambda address: is_private or is_public(address),
            lookups=lookups,
            max_bytes=self.config.max_fetch_bytes,
        )
        location = answer.headers.get("location", "") if answer.status in REDIRECTS else ""
        kind = answer.headers.get("content-type", "")
        return Fetched(target.url, answer.status, kind, answer.body), location


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise ToolFailed(
            f"{url} leads to {location[:80]!r}, which is no address: {error}",
            hint="give the last address",
        ) from error


def http_fetch(fetcher: Fetcher) -> Tool:
    """The tool."""

    async def run(job: Job) -> Outcome:
        found = await fetcher.fetch(job, job.text("url"))
        # A page of some megabytes takes seconds to read, which no other call should wait for.
        is_raw = job.text("form", "text") == "raw"
        return Outcome(await anyio.to_thread.run_sync(partial(read, found, is_raw=is_raw)))

    return make(
        "http_fetch",
        "Get a page of the web by its address, as text that you can read, or raw.",
        run,
        parameters={
            "url": string("an http or https address", min_length=8, max_length=8_192),
            "form": choice("text: without tags (default); raw: as it came", "text", "raw"),
        },
        required=["url"],
        traits=Traits(effect="pure", max_parallel=MAX_FETCHES, timeout_s=TIMEOUT_S),
        is_open=True,
    )


def read(found: Fetched, *, is_raw: bool) -> str:
    """The text of an answer.

    Raises:
        ToolFailed: The host says that it failed, or what came is no text.
    """
    kind, _, rest = found.content_type.lower().partition(";")
    if not kind.strip().startswith("text/") and not any(word in kind for word in TEXTUAL) and kind:
        raise ToolFailed(f"{found.url} is {kind}, which is no text", hint="fetch a page or JSON")
    charset = rest.partition("charset=")[2].strip(" \"';") or "utf-8"
    text = found.body.decode(_codec(charset), "replace")
    if "html" in kind and not is_raw:
        text = text_of(text)
    if found.status >= 400:
        raise ToolFailed(
            f"{found.url} answered with status {found.status}: {text[:300]}",
            hint="check the address",
        )
    return text


def _codec(charset: str) -> str:
    """The name of a codec for what a host says; UTF-8 for all that is none of `CHARSETS`."""
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return "utf-8"
    return name if CHARSETS.fullmatch(name) else "utf-8"
