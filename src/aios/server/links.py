"""`GET /aios/files/TOKEN`: the version of a file that a link leads to. The link is the leave; there is no listing and no other answer than 404."""

from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aios.abi.links import LINK_ROUTE
from aios.kernel.kernel import Kernel
from aios.kernel.storage.links import Linked

TYPE = "application/octet-stream"
HEADERS = {
    "cache-control": "private, no-store",
    # What somebody else has written must not run as a page of ours.
    "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class LinkRoutes:
    """The files that are given away by link."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def routes(self) -> list[Route]:
        """For the application."""
        return [Route(f"{LINK_ROUTE}{{token}}", self.file, methods=["GET", "HEAD"])]

    async def file(self, request: Request) -> Response:
        """The content, to be saved and not to be shown."""
        linked = await self._kernel.links.open(request.path_params["token"])
        headers = {
            **HEADERS,
            "content-length": str(linked.size_bytes),
            "content-disposition": disposition(linked.path),
        }
        if request.method == "HEAD":
            return Response(headers=headers, media_type=TYPE)
        return StreamingResponse(self._pieces(linked), headers=headers, media_type=TYPE)

    async def _pieces(self, linked: Linked) -> AsyncIterator[bytes]:
        async for piece in self._kernel.links.read(linked):
            yield piece


def disposition(path: str) -> str:
    """Save it under its name. Source: RFC 6266, RFC 8187; the plain name is for clients that know no other."""
    name = path.rpartition("/")[2]
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in name
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
