"""Keeps the vectors of the notes up to date: opens the embedder, embeds new texts, catches up with those that have no vector.

An embedder in this process (*near*) is asked before a note is written: whoever comes first embeds for all who wait, in a thread of
their own, while the writer's syncs the notes before them. One behind an engine (*far*) is asked in the background. When the embedder
changes, the vectors of the old one stay until the new one has made its own; the two are never compared.
"""

from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from aios.disk.db import Database
from aios.disk.writequeue import Waiter
from aios.errors import AiosError, edge
from aios.kernel.memory.search import Sense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aios.kernel.memory.asking import Ask, FarEmbedder
    from aios.kernel.memory.embedding import WordLlamaEmbedder
    from aios.kernel.memory.meaning import Meanings, Waiting
    from aios.kernel.memory.vectors import Signs

MAX_GROUP = 256
"""Texts embedded together; 10 ms for short ones."""
QUERY_S = 2.0
"""A recall waits so long for a far embedder, then it goes by words alone."""


class Text(Waiter):
    """A text that waits for its vector, and for its neighbours in a space (0: it is the first there)."""

    def __init__(self, text: str, space: int) -> None:
        self.text = text
        self.space = space
        self.placed: Placed | None = None


class Placed(NamedTuple):
    """A vector, by its signs and as it is stored, and the notes that are near it."""

    signs: "Signs"
    packed: bytes
    neighbours: list[int]


class Indexer:
    """The embedder of a kernel and what it has made of the notes.

    `meanings` is None when there is no embedder, before `open`, and until a far one has answered for the first time.
    """

    def __init__(
        self, db: Database, kind: str, tasks: anyio.abc.TaskGroup, *, ask: "Ask | None"
    ) -> None:
        self.meanings: Meanings | None = None
        self._db = db
        self._kind = kind
        self._tasks = tasks
        self._ask = ask
        self._near: WordLlamaEmbedder | None = None
        self._far: FarEmbedder | None = None
        self._waiting: list[Text] = []
        self._is_placing = False
        self._thread = anyio.CapacityLimiter(1)
        self._news = anyio.Event()

    @property
    def embedder(self) -> str:
        """The name of the embedder, empty without one."""
        return self.meanings.name if self.meanings is not None else ""

    @property
    def is_wanted(self) -> bool:
        """Whether notes are to have vectors, also while the embedder has not answered yet."""
        return self.meanings is not None or self._kind == "engine"

    async def open(self) -> None:
        """Load the embedder and the signs of its vectors. Called once, before the first write of a note."""
        kind = self._kind
        if kind == "engine":
            self._tasks.start_soon(self._index_far)
        elif kind == "wordllama" or (kind == "auto" and find_spec("wordllama") is not None):
            self._near = await anyio.to_thread.run_sync(_open_near)
            await self._load(self._near.name, self._near.n_dims)
            self._tasks.start_soon(self._catch_up)

    async def place(self, text: str, space: int) -> Placed | None:
        """The vector of a new text and its neighbours in a space; None when it gets them later, or never.

        Texts that come together are not neighbours yet.
        """
        if self._near is None:
            return None
        mine = Text(text, space)
        self._waiting.append(mine)
        try:
            while mine.placed is None:
                if self._is_placing:
                    await mine.wait()
                else:
                    await self._lead(mine)
        finally:
            if mine in self._waiting:  # it was cancelled; it may have been the one that was to lead
                self._waiting.remove(mine)
                self._wake_leader()
        return mine.placed

    async def ask(self, query: str) -> Sense | None:
        """What a far embedder makes of a query; None when it does not answer in time, or is near: see `sense_here`."""
        far, meanings = self._far, self.meanings
        if far is None or meanings is None:
            return None
        from aios.kernel.memory.asking import OtherModelError  # noqa: PLC0415 - takes packages of an extra

        with anyio.move_on_after(QUERY_S), suppress(AiosError, OtherModelError):
            # When it fails words still find notes, and the answer says that they were alone.
            return Sense(meanings, (await far.embed([query]))[0])
        return None

    def sense_here(self, query: str) -> Sense | None:
        """What a near embedder makes of a query; in whatever thread, for long queries take milliseconds."""
        near, meanings = self._near, self.meanings
        if near is None or meanings is None:
            return None
        return Sense(meanings, near.embed([query])[0])

    def close(self) -> None:
        """The kernel has ended: let go of the weights and signs, 35 MB and more.

        What is left of a kernel is a circle of references, which Python may not look at for a long time.
        """
        self._near = self.meanings = None

    def note_news(self) -> None:
        """A note was written; if it has no vector yet, it gets one."""
        if self._far is not None:
            self._news.set()

    async def _load(self, embedder: str, n_dims: int) -> None:
        """In the writer's thread, so that nothing is written or dropped between loading and publishing."""
        from aios.kernel.memory.meaning import Meanings  # noqa: PLC0415 - takes packages of an extra

        meanings = Meanings(embedder, n_dims)

        def publish(_: None) -> None:
            self.meanings = meanings

        await self._db.write(meanings.load, publish)

    async def _index_far(self) -> None:
        from aios.kernel.memory.asking import OtherModelError, find_embedder, known  # noqa: PLC0415 - takes packages of an extra

        assert self._ask is not None
        while True:
            try:
                found = await find_embedder(self._ask)
                far = await self._db.write(partial(known, found=found))
                await self._load(far.name, far.n_dims)
            except AiosError:
                return  # the kernel is ending
            self._far = far
            with suppress(OtherModelError):
                await self._follow_news()

    async def _follow_news(self) -> None:
        after = 0
        while True:
            self._news = anyio.Event()
            after = await self._catch_up(after)
            await self._news.wait()

    async def _catch_up(self, after: int = 0) -> int:
        """Give vectors to the notes after an id that have none of this embedder's, some in each write, so that others come between.

        Returns: the id of the last one.
        """
        meanings = self.meanings
        assert meanings is not None
        try:
            while waiting := await self._db.read(partial(meanings.waiting, after=after)):
                await self._embed_waiting(meanings, waiting)
                after = waiting[-1].note
        except AiosError:
            pass  # the kernel is ending, or the next call says what is wrong; the rest is caught up next time
        return after

    async def _embed_waiting(self, meanings: "Meanings", waiting: "Sequence[Waiting]") -> None:
        from aios.kernel.memory.meaning import kept_of  # noqa: PLC0415 - takes packages of an extra

        texts = [each.text for each in waiting]
        if self._far is not None:
            kept = kept_of(waiting, await self._far.embed_some(texts))
        elif (near := self._near) is None:
            return  # the kernel is ending
        else:
            with edge("the embedder"):
                vectors = await anyio.to_thread.run_sync(near.embed, texts, limiter=self._thread)
            kept = kept_of(waiting, [vectors[place : place + 1] for place in range(len(texts))])
        if kept is not None:
            await self._db.write(partial(meanings.catch_up, kept=kept), meanings.publish)

    async def _lead(self, mine: Text) -> None:
        """Place one group, and let the next one lead. A lock would wake one after the other, each in a round of the loop of its own."""
        self._is_placing = True
        group: list[Text] = []
        try:
            await anyio.lowlevel.checkpoint()  # those who were woken together come into one group
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            await anyio.to_thread.run_sync(partial(self._place, group), limiter=self._thread)
        finally:  # if it failed, each of the others tries for itself
            self._is_placing = False
            self._waiting[:0] = [each for each in group if not (each.placed or each is mine)]
            for each in group:
                each.wake()
            self._wake_leader()

    def _wake_leader(self) -> None:
        if self._waiting and not self._is_placing:
            self._waiting[0].wake()

    def _place(self, group: list[Text]) -> None:
        from aios.kernel.memory.embedding import packed  # noqa: PLC0415 - takes packages of an extra

        assert self._near is not None
        assert self.meanings is not None
        vectors = self._near.embed([each.text for each in group])
        neighbours = self.meanings.neighbours(vectors, [each.space for each in group])
        signs = self.meanings.index.signs_of(vectors).T
        rows = zip(group, signs, packed(vectors), neighbours, strict=True)
        for each, column, row, near in rows:
            each.placed = Placed(column, row, near)


def _open_near() -> "WordLlamaEmbedder":
    from aios.kernel.memory.embedding import WordLlamaEmbedder  # noqa: PLC0415 - takes packages of an extra

    return WordLlamaEmbedder()
