"""Keeps the vectors of the notes up to date: opens the embedder, embeds new texts in groups, catches up with old notes.

New texts are embedded before their write, in a thread of their own, while the writer's syncs the notes before them: whoever comes
first embeds for all who wait.
"""

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.abc
import anyio.to_thread

from aios.disk.db import Database
from aios.errors import DiskFailed

if TYPE_CHECKING:
    from aios.kernel.memory.embedding import Vectors
    from aios.kernel.memory.meaning import Meanings

MAX_GROUP = 256
"""Texts embedded together; 10 ms for short ones."""


class Text:
    """A text that waits for its vector, and for its neighbours in a space (0: it is the first there)."""

    def __init__(self, text: str, space: int) -> None:
        self.text = text
        self.space = space
        self.placed: Placed | None = None


class Placed(NamedTuple):
    """A vector, as one row, and the notes that are near it."""

    vector: "Vectors"
    neighbours: list[int]


class Indexer:
    """The embedder of a kernel and what it has made of the notes; `meanings` is None when there is none, or before `open`."""

    def __init__(self, db: Database, kind: str, tasks: anyio.abc.TaskGroup) -> None:
        self.meanings: Meanings | None = None
        self._db = db
        self._kind = kind
        self._tasks = tasks
        self._waiting: list[Text] = []
        self._turn = anyio.Lock()
        self._thread = anyio.CapacityLimiter(1)

    @property
    def embedder(self) -> str:
        """The name of the embedder, empty without one."""
        return self.meanings.name if self.meanings is not None else ""

    async def open(self) -> None:
        """Load the embedder and the signs of its vectors. Called once, before the first write of a note."""
        kind = self._kind
        if kind == "wordllama" or (kind == "auto" and find_spec("wordllama") is not None):
            meanings = await anyio.to_thread.run_sync(_open_meanings)
            # In the writer's thread, so that nothing is written or dropped between loading and publishing.
            await self._db.write(meanings.load)
            self.meanings = meanings
            self._tasks.start_soon(self._catch_up, meanings)

    async def place(self, text: str, space: int) -> Placed | None:
        """The vector of a text and its neighbours in a space; None without an embedder. Texts that come together are not neighbours yet."""
        if self.meanings is None:
            return None
        mine = Text(text, space)
        self._waiting.append(mine)
        async with self._turn:
            while mine.placed is None:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                place = partial(_place, self.meanings, group)
                await anyio.to_thread.run_sync(place, limiter=self._thread)
        return mine.placed

    async def _catch_up(self, meanings: "Meanings") -> None:
        """Give vectors to the notes that have none of this embedder's, some in each write, so that others come between."""
        after, is_more = 0, True
        try:
            while is_more:
                some = partial(meanings.catch_up, after=after)
                kept = await self._db.write(some, meanings.publish)
                is_more = bool(kept.notes)
                after = kept.notes[-1] if is_more else after
        except DiskFailed:
            return  # the kernel is ending, or the next call says what is wrong; the rest is caught up next time


def _place(meanings: "Meanings", group: list[Text]) -> None:
    vectors = meanings.embedder.embed([each.text for each in group])
    for number, each in enumerate(group):
        vector = vectors[number : number + 1]
        each.placed = Placed(vector, meanings.neighbours(vector, each.space))


def _open_meanings() -> "Meanings":
    from aios.kernel.memory.meaning import open_meanings  # noqa: PLC0415 - takes packages of an extra

    return open_meanings()
