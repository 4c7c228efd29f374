"""A conversation with one server, in the newest version of the protocol that both know: what it offers, and calls of its tools.

The official SDK speaks the protocol, and everything that it gives back or raises comes from a server that nobody vouches for: whatever
it raises is a failure of that server. Results are checked by the tool manager (jsonschema-rs, in linear time), not by the SDK,
whose regular expressions a server could make run for ever.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import anyio
import mcp_types as types
import msgspec
from mcp import Client, MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from msgspec import Struct
from pydantic import TypeAdapter

from aios import __version__
from aios.abi.types import JsonObject
from aios.errors import AiosError, ToolFailed
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.mcp.wire import Streams, Traffic

MAX_PAGES = 64
"""Pages of a list of tools."""
MAX_WORDS_CHARS = 500
_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


class Reply(Struct, frozen=True):
    """How a call ended: with an outcome, or with an error that the server tells the model."""

    outcome: Outcome
    is_error: bool = False


class Session:
    """A conversation that has begun. Made by `open_session`."""

    def __init__(self, client: Client, traffic: Traffic) -> None:
        self._client = client
        self._traffic = traffic

    @property
    def protocol(self) -> str:
        """The version that is spoken."""
        return self._client.protocol_version

    async def list_tools(self) -> list[bytes]:
        """What the server offers, each tool as JSON.

        Raises:
            ToolFailed: It did not say so, or not to an end.
        """
        with contained(self._traffic, "its list of tools"):
            self._traffic.is_changed = False
            found: list[bytes] = []
            cursor: str | None = None
            for _ in range(MAX_PAGES):
                page = await self._client.session.list_tools(
                    params=types.PaginatedRequestParams(cursor=cursor)
                )
                found += [
                    tool.model_dump_json(by_alias=True, exclude_none=True).encode()
                    for tool in page.tools
                ]
                cursor = page.next_cursor
                if not cursor:
                    return found
            raise ToolFailed(f"it has over {MAX_PAGES} pages of tools", hint="tell its author")

    async def call(self, name: str, arguments: JsonObject, *, timeout_s: float) -> Reply:
        """Run a tool.

        Raises:
            ToolFailed: The server broke, did not answer in time, or answered what is no answer.
        """
        request = types.CallToolRequest(
            params=types.CallToolRequestParams(name=name, arguments=arguments)
        )
        with contained(self._traffic, f"{name}"):
            try:
                result = await self._client.session.send_request(
                    request, _RESULT, request_read_timeout_seconds=timeout_s
                )
            except MCPError as error:
                if error.error.code != types.REQUEST_TIMEOUT or self._traffic.why:
                    raise
                raise ToolFailed(
                    f"{name}: no answer within {timeout_s:g} s",
                    hint="a larger `timeout_s` of the server waits longer",
                ) from error
            if isinstance(result, types.InputRequiredResult):
                raise ToolFailed(
                    f"{name} asks for something of a user in the middle, which agents do not give",
                    hint="give it all it needs in its arguments",
                )
            return Reply(_outcome(result), is_error=bool(result.is_error))


@asynccontextmanager
async def open_session(
    transport: AbstractAsyncContextManager[Streams], traffic: Traffic, *, is_old: bool
) -> AsyncIterator[Session]:
    """Begin a conversation.

    Args:
        transport: The streams of the server.
        traffic: What passes on them.
        is_old: It spoke a version before 2026 last time: do not ask for a newer one first, which some never answer.

    Raises:
        ToolFailed: It did not begin; a failure in the middle ends the block.
    """
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it would log what servers say
    client = Client(
        transport,
        client_info=types.Implementation(name="aios", version=__version__),
        mode="legacy" if is_old else "auto",
        cache=None,
    )
    with contained(traffic, "its start"):
        async with client:
            yield Session(client, traffic)


def is_old(protocol: str) -> bool:
    """Whether a version begins with a handshake."""
    return protocol in HANDSHAKE_PROTOCOL_VERSIONS


@contextmanager
def contained(traffic: Traffic, what: str) -> Iterator[None]:
    """Whatever the SDK raises is a failure of the server."""
    try:
        yield
    except AiosError:
        raise
    except Exception as error:  # the edge to the SDK, which is fed by servers
        why = traffic.why or _words(error)
        raise ToolFailed(f"{what}: {why}", hint="`aios mcp check` tries it again") from error


def _words(error: BaseException) -> str:
    """What went wrong, in a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        said = error.error.message
    elif isinstance(error, AiosError):  # raised within a task group of the SDK
        said = error.message
    elif isinstance(error, TimeoutError | anyio.ClosedResourceError):
        said = "the connection ended"
    else:
        said = f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:MAX_WORDS_CHARS]


def _outcome(result: types.CallToolResult) -> Outcome:
    """What a result says: its structured content, else its text, else its blocks as JSON, nothing left out."""
    if result.structured_content is not None:
        return Outcome(msgspec.json.encode(result.structured_content).decode(), is_json=True)
    texts = [block.text for block in result.content if isinstance(block, types.TextContent)]
    if len(texts) == len(result.content):
        return Outcome("\n".join(texts))
    blocks = [
        block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in result.content
    ]
    return Outcome(msgspec.json.encode(blocks).decode(), is_json=True)
