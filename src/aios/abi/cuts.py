"""What left the window of a context: told with chats, and so apart from the calls about contexts, which small programs do not import."""

from msgspec import Struct

from aios.abi.types import Count


class Compaction(Struct, frozen=True):
    """What once left a window, or came back into it (`what` is then `fault`), and can be undone.

    Tokens are those of the prompt before and after; `is_estimated` when the engine cannot count and characters were.
    """

    what: str
    n_messages: Count
    n_tokens_before: Count
    n_tokens_after: Count
    is_estimated: bool
    unix_s: float


class Cut(Struct, frozen=True):
    """How messages left a window, such that the same can leave it again when a program is replayed.

    Those in `spans` left, each from one place to before another, counted from 0. `note` is what stands in the place of the first, empty if
    nothing does; `pointer` leads to what left, 0 for none.
    """

    compaction: Compaction
    spans: tuple[tuple[Count, Count], ...]
    note: str = ""
    pointer: Count = 0
