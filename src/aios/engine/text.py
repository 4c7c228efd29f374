"""From the bytes of sampled tokens to text that may be handed out: whole characters, nothing of a stop string.

Pure: no clock, no I/O. One assembler belongs to one generation. Its whole state is immutable values, so `copy.copy`
gives an independent assembler, which is how it becomes part of suspended state.
"""

from codecs import utf_8_decode
from dataclasses import dataclass, field


@dataclass
class TextAssembler:
    """Turns token bytes into text; ends at the first stop string.

    The first stop string is the one whose end comes earliest; of those that end at the same place, the longest. What it
    matched is never handed out, nor anything after it.

    Args:
        stop: Stop strings; empty ones are ignored.

    Attributes:
        stopped: A stop string was found; from then on every `feed` brings nothing.
    """

    stop: tuple[str, ...] = ()
    stopped: bool = field(default=False, init=False)
    _partial: bytes = field(default=b"", init=False)
    """The first bytes of a character whose other bytes have not come yet: at most three."""
    _held: str = field(default="", init=False)
    """Text that may turn out to be the beginning of a stop string."""
    _matched: tuple[int, ...] = field(default=(), init=False)
    """For each stop string, how many of its characters the text ends with."""
    _fallbacks: tuple[tuple[int, ...], ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        self.stop = tuple(stop for stop in self.stop if stop)
        self._matched = (0,) * len(self.stop)
        self._fallbacks = tuple(_fallback_table(stop) for stop in self.stop)

    def feed(self, token_bytes: bytes) -> str:
        """Take the bytes of one token (or any piece of the stream) and return the text that may be handed out now.

        Invalid UTF-8 becomes U+FFFD exactly as `decode("utf-8", "replace")` of the whole stream would have it.
        Cost: linear in the bytes fed, whatever the stop strings are.
        """
        if self.stopped:
            return ""
        data = self._partial + token_bytes
        text, n_used = utf_8_decode(data, "replace", False)
        self._partial = data[n_used:]
        return self._pass_on(text)

    def flush(self) -> str:
        """Return what was held back; for when the generation ends for another reason than a stop string.

        A character that was cut in the middle is left out: it says nothing, and would stand in a conversation for good.
        """
        if self.stopped:
            return ""
        self._partial = b""
        out, self._held = self._held, ""
        self._matched = (0,) * len(self.stop)
        return out

    def _pass_on(self, text: str) -> str:
        if not self.stop:
            return text
        pending = self._held + text
        n_checked = len(self._held)
        for i, char in enumerate(text, start=n_checked + 1):
            n_stop = self._advance(char)
            if n_stop:
                self.stopped = True
                self._held = ""
                return pending[: i - n_stop]
        n_free = len(pending) - max(self._matched)
        self._held = pending[n_free:]
        return pending[:n_free]

    def _advance(self, char: str) -> int:
        """Move every stop string's match by one character; return the length of the longest that is now whole, or 0."""
        matched = tuple(
            _next_match(stop, fallbacks, n, char)
            for stop, fallbacks, n in zip(self.stop, self._fallbacks, self._matched, strict=True)
        )
        self._matched = matched
        whole = (n for stop, n in zip(self.stop, matched, strict=True) if n == len(stop))
        return max(whole, default=0)


def _next_match(stop: str, fallbacks: tuple[int, ...], n: int, char: str) -> int:
    """One step of Knuth, Morris and Pratt: amortised constant time however often the stop string repeats itself."""
    while n and stop[n] != char:
        n = fallbacks[n - 1]
    return n + 1 if stop[n] == char else 0


def _fallback_table(stop: str) -> tuple[int, ...]:
    """For each prefix of `stop`, the length of its longest proper prefix that is also its suffix."""
    table = [0] * len(stop)
    n = 0
    for i in range(1, len(stop)):
        while n and stop[i] != stop[n]:
            n = table[n - 1]
        if stop[i] == stop[n]:
            n += 1
        table[i] = n
    return tuple(table)
