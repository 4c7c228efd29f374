"""Where a conversation is at home: the engine, or the engines that share pages, which hold what was computed of it."""

from msgspec import Struct


class Home(Struct, frozen=True):
    """Which pages hold its KV rows (`Candidate.pages` in `router.py`), and how many tokens of its prompt they hold."""

    pages: str
    n_tokens: int


Homes = dict[str, Home]
"""By the name that the calls give the model."""
