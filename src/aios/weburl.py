"""Whether a text is an address to which a request can be sent. Pure."""

from urllib.parse import urlsplit

import httpx


def is_sendable(url: str) -> bool:
    """Whether all who read it on its way take it, as far as it shows: `urlsplit`, httpx, the resolver of names. Each refuses some that others take."""
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        found = httpx.URL(url)
        found.raw_host.decode("ascii").encode("idna")
        return is_http and bool(found.host)
    except (ValueError, httpx.InvalidURL):  # a UnicodeError is a ValueError
        return False
