"""Generations that are interrupted and go on elsewhere, compared token by token with those that were left alone.

Both begin cold: no page and no slot holds anything of their prompt, so that both compute it in the same batches. What is
compared is each token with its log-probability, to the last bit.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import anyio
from msgspec import Struct

from aios.abi.types import JsonSchema, Message, Role, Sampling, TokenLogprob
from aios.bench.children import scratch_folder
from aios.config import ContextConfig, EngineConfig
from aios.configload import load
from aios.engine.base import ChatPrompt, Engine, Job, PageStore, Suspended, TextPrompt
from aios.engine.base import Sequence as Generating
from aios.engine.opening import open_engine
from aios.kernel.context.manager import ContextManager

if TYPE_CHECKING:  # numpy comes with the `local` extra
    import numpy as np
    from numpy.typing import NDArray

END_TOKEN = 2
"""Of the default model; banned where every output must be as long as the next."""
MAX_TOKENS = 40
RAM_BYTES = 256 << 20
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["letter", "report", "poem"]},
        "title": {"type": "string", "maxLength": 60},
        "stars": {"type": "integer", "minimum": 1, "maximum": 500},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 6},
    },
    "required": ["kind", "title", "stars", "words"],
    "additionalProperties": False,
}
TOPICS = ("a lighthouse and its keeper", "two ships in a storm", "a library at night")


class Way(Enum):
    """Where a suspended generation goes on."""

    SLOT = "its own slot, untouched"
    RAM = "another slot, from memory, after others had all of them"
    DISK = "another slot, from disk"
    ENGINE = "a new engine over a new page store, from bytes and disk"


class Case(Struct, frozen=True):
    """A generation, suspended whenever `quantum` tokens were read; each suspension goes one token further at most."""

    way: Way
    quantum: int
    kind: int
    """The number of its job among `jobs()`."""

    @property
    def job(self) -> Job:
        """What is generated."""
        return jobs()[self.kind]


class Pages:
    """A page store that can be lost and found: what an engine has is exchanged under it while it is idle."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._numbers = count()
        self._folder = folder / "first"
        self._shape: tuple[str, int, int] | None = None
        self._store: PageStore | None = None

    def open(self, *, fingerprint: str, page_tokens: int, page_bytes: int) -> "Pages":
        """What an engine opens its store with."""
        self._shape = (fingerprint, page_tokens, page_bytes)
        self.reopen()
        return self

    def reopen(self) -> None:
        """Lose what is in memory; what was flushed is on disk."""
        assert self._shape is not None
        config = ContextConfig(ram_bytes=RAM_BYTES)
        fingerprint, page_tokens, page_bytes = self._shape
        self._store = ContextManager(config, self._folder).open_pages(
            fingerprint=fingerprint, page_tokens=page_tokens, page_bytes=page_bytes
        )

    def clear(self) -> None:
        """Lose everything."""
        rmtree(self._folder, ignore_errors=True)
        self._folder = self._root / str(next(self._numbers))
        self.reopen()

    @property
    def _inner(self) -> PageStore:
        assert self._store is not None
        return self._store

    def keys(self, tokens: "NDArray[np.int32]", *, tail: bool = False) -> list[bytes]:
        return self._inner.keys(tokens, tail=tail)

    def n_known(self, keys: Sequence[bytes]) -> int:
        return self._inner.n_known(keys)

    def longest(self, tokens: "NDArray[np.int32]") -> tuple[list[bytes], int]:
        return self._inner.longest(tokens)

    def n_resident(self, keys: Sequence[bytes]) -> int:
        return self._inner.n_resident(keys)

    def acquire(self, keys: Sequence[bytes]) -> "list[NDArray[np.uint8]]":
        return self._inner.acquire(keys)

    def release(self, keys: Sequence[bytes]) -> None:
        self._inner.release(keys)

    def add(
        self, key: bytes, parent: bytes | None, write: "Callable[[NDArray[np.uint8]], None]"
    ) -> bool:
        return self._inner.add(key, parent, write)

    def pin(self, name: str, keys: Sequence[bytes], *, synced: bool = False) -> int:
        return self._inner.pin(name, keys, synced=synced)

    def unpin(self, name: str) -> None:
        self._inner.unpin(name)

    def flush(self, keys: Sequence[bytes]) -> int:
        return self._inner.flush(keys)


@dataclass
class Rig:
    """An engine and its pages, to be tormented."""

    engine: Engine
    pages: Pages
    config: EngineConfig
    n_interruptions: int = 0
    n_recomputed: float = 0
    """By engines that have ended."""

    async def run(self, job: Job) -> list[TokenLogprob]:
        """A generation from a cold start, left alone."""
        await self._chill()
        return await read_rows(await self.engine.open(job))

    async def run_interrupted(self, case: Case) -> list[TokenLogprob]:
        """The same, interrupted."""
        await self._chill()
        rows: list[TokenLogprob] = []
        sequence, way = await self.engine.open(case.job), case.way
        while not await _read_some(sequence, rows, case.quantum):
            suspended = await sequence.suspend()
            self.n_interruptions += 1
            suspended = await self._move(suspended, way)
            if way is Way.ENGINE:  # one new engine for each generation
                way = Way.SLOT
            sequence = await self.engine.open(case.job, suspended)
        await sequence.close()
        return rows

    async def scrub(self) -> None:
        """Have others take every slot, and leave nothing there of what was."""
        async with anyio.create_task_group() as tasks:
            for number in range(self.config.n_slots):
                job = Job(TextPrompt(f"{number} is"), Sampling(temperature=0, seed=1), 1)
                tasks.start_soon(_run, self.engine, job)

    @property
    def n_recomputed_tokens(self) -> int:
        """Tokens that suspended generations computed again."""
        return int(self.n_recomputed + self.engine.statistics().extra["recomputed_tokens"])

    async def _chill(self) -> None:
        await self.scrub()
        self.pages.clear()

    async def _move(self, suspended: Suspended, way: Way) -> Suspended:
        """Take a suspended generation to where it is to go on from."""
        if way is Way.SLOT:
            return suspended
        if way is Way.RAM:
            await self.scrub()
            return suspended
        data = await self.engine.dump(suspended)
        if way is Way.DISK:
            await self.scrub()
        else:
            self.n_recomputed = self.n_recomputed_tokens
            await self.engine.aclose()
            self.engine = _new_engine(self.config, self.pages)
            await self.engine.start()
        self.pages.reopen()
        return self.engine.load(data)


@asynccontextmanager
async def open_rig(config: EngineConfig) -> AsyncIterator[Rig]:
    """The default model in an engine with such slots, and a folder for its pages."""
    with scratch_folder() as folder:
        pages = Pages(folder)
        rig = Rig(_new_engine(config, pages), pages, config)
        await rig.engine.start()
        try:
            yield rig
        finally:
            with anyio.CancelScope(shield=True):
                await rig.engine.aclose()


def cases(n: int) -> list[Case]:
    """So many cases, with all quanta from 1 to 32, all ways, and all kinds of job among them if there are enough."""
    ways, n_kinds = tuple(Way), len(jobs())
    return [Case(ways[(i + i // 32) % len(ways)], 1 + i % 32, (i // 4) % n_kinds) for i in range(n)]


def jobs() -> tuple[Job, ...]:
    """Greedy and sampled, free and under a grammar, each about several things."""
    greedy, sampled = Sampling(temperature=0, seed=1), Sampling(temperature=0.9, seed=7)
    found = []
    for topic in TOPICS:
        text = f"Write about {topic}. " + f"Be brief, be kind, and think of {topic}. " * 6
        prompt = ChatPrompt((Message(Role.USER, text),))
        for sampling in (greedy, sampled):
            free = Sampling(
                temperature=sampling.temperature, seed=sampling.seed, logit_bias={END_TOKEN: -100.0}
            )
            found.append(Job(prompt, free, MAX_TOKENS, top_logprobs=0))
            schema = JsonSchema(SCHEMA)
            found.append(Job(prompt, sampling, MAX_TOKENS, constraint=schema, top_logprobs=0))
    return tuple(found)


async def left_alone(rig: Rig, chosen: Sequence[Case]) -> dict[int, list[TokenLogprob]]:
    """What the jobs of the cases bring when nobody interrupts them."""
    return {kind: await rig.run(jobs()[kind]) for kind in sorted({case.kind for case in chosen})}


async def read_rows(sequence: Generating) -> list[TokenLogprob]:
    """Read to the end and close. Returns: the tokens, with their log-probabilities."""
    rows: list[TokenLogprob] = []
    try:
        while not await _read_some(sequence, rows, MAX_TOKENS):
            pass
    finally:
        await sequence.close()
    return rows


async def _read_some(sequence: Generating, rows: list[TokenLogprob], n_tokens: int) -> bool:
    """Read at least so many tokens. Returns: whether that was the end."""
    n_wanted = len(rows) + n_tokens
    while len(rows) < n_wanted:
        delta = await sequence.read()
        rows += delta.logprobs
        if delta.finish is not None:
            return True
    return False


async def _run(engine: Engine, job: Job) -> None:
    sequence = await engine.open(job)
    try:
        while (await sequence.read()).finish is None:
            pass
    finally:
        await sequence.close()


def _new_engine(config: EngineConfig, pages: Pages) -> Engine:
    return open_engine("bench", config, load().home, open_pages=pages.open)
