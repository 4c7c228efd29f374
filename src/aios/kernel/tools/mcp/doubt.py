"""A server that is not what its owner trusts: what is asked about it, and of whom."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from aios.abi.mcp import McpState
from aios.kernel.access.manager import MAX_SHOWN_CHARS, shown
from aios.kernel.process import Run
from aios.kernel.tools.mcp.definitions import changes
from aios.kernel.tools.mcp.server import Server
from aios.kernel.tools.mcp.spec import ServerSpec


class Doubt(Struct, frozen=True):
    """What the owner is asked: whether a server may be used as it is now."""

    server: str
    digest: str
    """What a yes is for: another one whenever the server or what it offers is another."""
    why: str
    shown: str
    """What differs, before and now."""


class AsksOwner(Protocol):
    """Lets the owner decide; see `approvals/trusting.py`."""

    async def ask(self, run: Run, doubt: Doubt, accept: Callable[[], Awaitable[None]]) -> None:
        """Wait for the owner's word, which may come by another way; at a yes, `accept` it.

        Raises:
            AccessDenied: It is no, or there was none in time.
        """
        ...

    def settle(self, server: str, digest: str, *, by: str) -> None:
        """The owner has said yes himself, to the server as it has this digest."""
        ...


def doubt_of(server: Server) -> Doubt:
    """What is asked about a server, with all in which it differs from what is trusted: a yes is for all of that."""
    spec = server.spec
    if not server.is_trusted:
        how = "changed there" if server.pinned is not None else "added to it"
        why = f"it is in {spec.source}, and was {how} since its owner looked"
        return Doubt(spec.name, server.digest, why, shown(spec.shown))
    found = changes(server.tools, server.offered)
    told = ", ".join(f"{name} is {_told(state)}" for name, state in found.items())
    differs = {
        name: {"before": server.tools.get(name), "now": (server.offered or {}).get(name)}
        for name in found
    }
    text = _text(spec, differs)
    if len(text) > MAX_SHOWN_CHARS:  # then one by one, and cut only where no secret is any more
        parts = ((name, when, one) for name, both in differs.items() for when, one in both.items())
        text = shown({f"{name} {when}": _text(spec, one) for name, when, one in parts})
    return Doubt(spec.name, server.digest, f"its tools are others: {told}", text)


def _text(spec: ServerSpec, value: object) -> str:
    return spec.hide(msgspec.json.encode(value).decode())


def _told(state: McpState) -> str:
    return "defined otherwise" if state is McpState.CHANGED else state.value
