"""What is kept of a slot when its sequence leaves: pages (`paging`) or, where cells cannot be paged, whole states (`states`)."""

from typing import Protocol
from uuid import uuid4

from msgspec import Struct

from aios.engine.llama.sampling import Tokens


class Kept(Struct, frozen=True):
    """The cells of a suspended generation: its first `n_tokens` tokens, under a pin. An empty name pins nothing."""

    pin: str = ""
    n_tokens: int = 0


NOTHING = Kept()


class Keeper(Protocol):
    """Keeps cells outside the slots. Belongs to the engine's thread, but for what says that any thread may call it.

    `n_kept` is what `Kept.n_tokens` says of a generation that goes on, else 0: so many tokens, to the last one, are looked
    for before what other sequences have computed of the same beginning.
    """

    def n_stored(self, tokens: Tokens, *, n_kept: int = 0) -> int:
        """How many tokens from the start a slot could be filled with."""
        ...

    def load(self, slot: int, tokens: Tokens, *, n_kept: int = 0) -> int:
        """Fill a slot with the stored beginning of these tokens. Returns: how many it holds now; 0 leaves it unknown."""
        ...

    def save(self, slot: int, tokens: Tokens) -> None:
        """Keep what a slot holds for whoever begins with the same; its cells hold exactly these tokens."""
        ...

    def pages(self, tokens: Tokens) -> tuple[bytes, ...]:
        """The names of the pages of these tokens, to the last one; none where cells cannot be paged. Any thread."""
        ...

    def suspend(self, slot: int, tokens: Tokens) -> Kept:
        """Keep all that a slot holds, to the last token, until it is unpinned."""
        ...

    def unpin(self, pin: str) -> None:
        """Let go what `suspend` kept; unknown is nothing. Any thread."""
        ...

    def is_on_disk(self, tokens: Tokens, *, n_kept: int = 0) -> bool:
        """Whether `load` would have to wait for a disk. Any thread."""
        ...

    def fetch(self, tokens: Tokens, *, n_kept: int = 0) -> None:
        """Bring into memory what `load` would need. Any thread but those where others wait."""
        ...

    def flush(self, tokens: Tokens, kept: Kept) -> int:
        """Have a suspended generation's cells on disk, synced, with their pin. Returns: how many tokens survive the kernel.

        Any thread but those where others wait.
        """
        ...


def new_pin() -> str:
    """A name that no other suspended generation has, in this or another kernel."""
    return f"suspended {uuid4().hex}"
