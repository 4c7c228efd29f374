"""Server-sent events: from bytes, however they were cut, to the data of whole events. Pure, and bounded.

Source: HTML Living Standard, section 9.2 (server-sent events). Two things differ on purpose. Limits: a line or an event that
is too long is an error, not a reason to take more memory. And an event that the stream ends in, without the blank line, is
kept, for some servers leave that line out.
"""

from aios.errors import EngineFailed

MAX_LINE_BYTES = 4 << 20
MAX_EVENT_BYTES = 8 << 20
_BOM = b"\xef\xbb\xbf"


class SseParser:
    """Cuts one stream into events; only their `data` is kept.

    Attributes:
        n_lines: Whole lines so far, comments and blank lines included: the sign that the other side is alive.
    """

    def __init__(
        self, *, max_line_bytes: int = MAX_LINE_BYTES, max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self.n_lines = 0
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._line: list[
            bytes
        ] = []  # pieces of the unfinished line: joined once, so that a slow drip costs no square
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._ended_in_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes and return the data of the events that they complete.

        Raises:
            EngineFailed: A line or an event is over its limit, or not UTF-8.
        """
        if self._ended_in_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._ended_in_cr = False
        events: list[str] = []
        for line in chunk.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            self._line_bytes += len(text)
            if self._line_bytes > self._max_line_bytes:
                raise EngineFailed(f"the endpoint sent a line of over {self._max_line_bytes} bytes")
            self._line.append(text)
            if len(text) < len(line):
                self._end_line(events)
                self._ended_in_cr = line.endswith(b"\r")
            else:
                self._ended_in_cr = False
        return events

    def flush(self) -> list[str]:
        """The event that was not ended before the stream was; at most one.

        Raises:
            EngineFailed: As `feed`.
        """
        events: list[str] = []
        if self._line_bytes:
            self._end_line(events)
        self._end_event(events)
        return events

    def _end_line(self, events: list[str]) -> None:
        line = b"".join(self._line)
        self._line.clear()
        self._line_bytes = 0
        self.n_lines += 1
        if self.n_lines == 1:
            line = line.removeprefix(_BOM)
        if not line:
            self._end_event(events)
            return
        field, _, value = line.partition(b":")
        if field != b"data":
            return
        value = value.removeprefix(b" ")
        self._data.append(value)
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._max_event_bytes:
            raise EngineFailed(f"the endpoint sent an event of over {self._max_event_bytes} bytes")

    def _end_event(self, events: list[str]) -> None:
        if not self._data:
            return
        data = b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        try:
            events.append(data.decode())
        except UnicodeDecodeError as error:
            raise EngineFailed(
                f"the endpoint sent an event that is not UTF-8: {error.reason}"
            ) from error
