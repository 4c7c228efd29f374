"""Between a server and the SDK: what is malformed, too long, or too much is stopped here, before the SDK sees it.

The SDK gets replies to what it asked, and of what a server says unasked only requests, at the rate that `Flow` allows; it answers each with a
refusal, or a pong. Notifications end here; that the tools changed is noted. `wire.py`, `stdio.py`, `http.py` and `session.py` import the
SDK (0.6 s, 57 MB) and are themselves imported with the first server that is used.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import msgspec
from anyio import to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    RequestId,
    jsonrpc_message_adapter,
)
from msgspec import Struct

from aios.abi.counting import count_values
from aios.kernel.tools.mcp.flow import BYTES, REQUEST, Flow
from aios.readers import from_json

TOOLS_CHANGED = "notifications/tools/list_changed"
BUFFERED = 64
"""Messages on the way in each direction."""
FLOOD = "it floods the kernel with what nobody asked for"
MAX_VALUES = 250_000
"""In one message: while they are made, for 0.1 s, nothing else runs."""
MALFORMED = "the reply is malformed"
TOO_RICH = f"the reply has over {MAX_VALUES:,} values"
MAX_BATCH = 256
"""Servers of 2025-03-26 may put several messages into one line."""

Incoming = SessionMessage | Exception
Streams = tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]


class Head(Struct, frozen=True):
    """What a message is, whatever is in it."""

    id: int | str | None = None
    method: str | None = None

    @property
    def is_request(self) -> bool:
        """Whether it is to be answered."""
        return bool(self.method) and self.id is not None


@dataclass
class Traffic:
    """What passes on one connection, and why it ended.

    Attributes:
        now_s: The clock.
        is_changed: The server said that its tools are others now.
        ended: Set when the connection is of no more use; `why` says the reason, if there is one.
    """

    now_s: Callable[[], float]
    is_changed: bool = False
    why: str = ""
    ended: anyio.Event = field(default_factory=anyio.Event)
    _flow: Flow = field(default_factory=Flow)
    _asked: dict[str, RequestId] = field(default_factory=dict)

    def end(self, why: str) -> None:
        """It is of no more use; the first reason counts."""
        if not self.ended.is_set():
            self.why = why
            self.ended.set()

    def note_sent(self, message: SessionMessage) -> None:
        """Remember what was asked."""
        if isinstance(message.message, JSONRPCRequest):
            self._asked[str(message.message.id)] = message.message.id

    def sort(self, message: Incoming) -> list[SessionMessage]:
        """What of a message goes on to the SDK."""
        if isinstance(message, Exception):  # an event over HTTP that answers no call
            self.is_admitted()
            return []
        inner = message.message
        if isinstance(inner, JSONRPCNotification):
            self.is_changed |= inner.method == TOOLS_CHANGED
            self.is_admitted()
            return []
        if isinstance(inner, JSONRPCRequest):
            return [message] if self.is_admitted(REQUEST) else []
        if inner.id is None or self._asked.pop(str(inner.id), None) is None:
            self.is_admitted()
            return []
        return [message]

    def read_line(self, line: bytes, *, is_rich: bool = False) -> list[SessionMessage]:
        """What of a line goes on to the SDK. A line that is no JSON object is a log line that went astray.

        Of one that `is_rich` the values are not made: whatever it says is malformed.
        """
        found = self._refuse(line) if is_rich else self._read_line(line)
        if not found and (more := len(line) // BYTES):
            self.is_admitted(more)
        return found

    def _read_line(self, line: bytes) -> list[SessionMessage]:
        try:
            value: object = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            if line.lstrip().startswith(b"{"):  # a reply was to be here, and nobody knows to what
                return self._answers_to_all() if self.is_admitted() else []
            self.is_admitted()
            return []
        found: list[SessionMessage] = []
        for each in value[:MAX_BATCH] if isinstance(value, list) else [value]:
            found += self._read(each)
        return found

    def is_admitted(self, n: int = 1) -> bool:
        """Count something unasked. Returns: whether it may pass; else the connection has ended."""
        if self._flow.admit(self.now_s(), n):
            return True
        self.end(FLOOD)
        return False

    def _read(self, value: object) -> list[SessionMessage]:
        try:
            return self.sort(
                SessionMessage(jsonrpc_message_adapter.validate_python(value, by_name=False))
            )
        except (ValueError, RecursionError):
            if isinstance(value, dict) and "method" not in value:
                asked = self._asked.pop(str(value.get("id")), None)
                if asked is not None:
                    return [_malformed(asked)]
            self.is_admitted()
            return []

    def _refuse(self, line: bytes) -> list[SessionMessage]:
        try:
            head = from_json(line, Head)
        except (ValueError, RecursionError):
            return self._answers_to_all(TOO_RICH) if self.is_admitted() else []
        asked = self._asked.pop(str(head.id), None) if head.method is None else None
        if asked is not None:
            return [_malformed(asked, TOO_RICH)]
        self.is_admitted()
        return []

    def _answers_to_all(self, why: str = MALFORMED) -> list[SessionMessage]:
        asked, self._asked = self._asked, {}
        return [_malformed(each, why) for each in asked.values()]


async def is_rich(message: bytes) -> bool:
    """Whether it has so many values that all others would wait while they are made. They are counted in a thread, if it is long."""
    if len(message) <= MAX_VALUES:
        return False
    return await to_thread.run_sync(count_values, message, MAX_VALUES) > MAX_VALUES


def _malformed(asked: RequestId, why: str = MALFORMED) -> SessionMessage:
    """What the SDK is told instead of a reply that is none."""
    error = ErrorData(code=PARSE_ERROR, message=why)
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=asked, error=error))
