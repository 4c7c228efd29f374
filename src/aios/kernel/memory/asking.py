"""An embedder that is far away: an engine's `embed`, also that of an endpoint, asked through a call of init's.

Nobody waits for it when a note is written: notes without a vector are found by their words, and the indexer asks for some of them
at a time as long as it takes.

An endpoint may serve another model by the same name tomorrow. So the same few texts, the probes, go along with each batch of notes:
who makes other vectors of them is another embedder.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import apsw
import msgspec
import numpy as np
from msgspec import Struct

from aios.abi.calls import Embeddings
from aios.errors import (
    AiosError,
    DeadlineExceeded,
    EngineRefused,
    EngineUnavailable,
    KernelStopping,
    RateLimited,
    ResourceExhausted,
)
from aios.kernel.memory import tables
from aios.kernel.memory.embedding import Vectors, normed, packed, unpacked

Ask = Callable[[tuple[str, ...]], Awaitable[Embeddings]]
"""Makes the call; raises what it raises."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
PROBES = (
    "The harbour lay still in the first light of the morning.",
    "def area(width, height): return width * height",
    "Refunds are paid within 14 days of the cancellation.",
)
SAME_COSINE = 0.98
"""The least likeness of what one model makes of a probe twice: packing the vectors costs 0.0001 of it, and a smaller quantization of
the same weights 0.01. Two models have little in common even when one was trained from the other."""
TRANSIENT = (EngineUnavailable, EngineRefused, RateLimited, ResourceExhausted, DeadlineExceeded)
"""Errors that another try may not meet, whatever the texts are."""


class OtherModelError(Exception):
    """Another model answers than the one that made the vectors so far."""


class FarEmbedder(Struct, frozen=True):
    """An engine that has answered once, so that the length of its vectors is known, and what it made of the probes."""

    name: str
    n_dims: int
    ask: Ask
    probes: Vectors

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text.

        Raises:
            AiosError: The call failed.
            OtherModelError: The vectors have another length than before.
        """
        vectors = _vectors(await self.ask(tuple(texts)))
        if vectors.shape != (len(texts), self.n_dims):
            raise OtherModelError(self.name)
        return vectors

    async def embed_some(self, texts: Sequence[str]) -> list[Vectors | None]:
        """The vector of each text as one row; None for a text that it refuses.

        It tries again, with growing pauses, until it has an answer for each.

        Raises:
            KernelStopping: The kernel is ending.
            OtherModelError: Another model answers now.
        """
        pause_s, found = FIRST_PAUSE_S, list[Vectors | None]()
        n_at_once = len(texts)
        while len(found) < len(texts):
            part = texts[len(found) : len(found) + n_at_once]
            try:
                vectors = await self._embed_beside_probes(part)
            except TRANSIENT:
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except KernelStopping:
                raise
            except AiosError:
                if len(part) > 1:
                    n_at_once = len(part) // 2
                elif await self._refuses(part):
                    found.append(None)
                else:
                    await anyio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                found += [vectors[place : place + 1] for place in range(len(part))]
                pause_s = FIRST_PAUSE_S
        return found

    async def _refuses(self, text: Sequence[str]) -> bool:
        """Whether it takes the probes, and then not with this one text: else the text is not what is wrong."""
        try:
            await self._embed_beside_probes(())
        except AiosError:
            return False
        try:
            await self._embed_beside_probes(text)
        except (KernelStopping, *TRANSIENT):
            return False
        except AiosError:
            return True
        return False

    async def _embed_beside_probes(self, texts: Sequence[str]) -> Vectors:
        vectors = await self.embed((*PROBES, *texts))
        if not alike(vectors[: len(PROBES)], self.probes):
            raise OtherModelError(self.name)
        return vectors[len(PROBES) :]


async def find_embedder(ask: Ask) -> FarEmbedder:
    """Ask until an engine answers, with growing pauses: which model it is, and what it makes of the probes."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            answer = await ask(PROBES)
        except KernelStopping:
            raise
        except AiosError:
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            probes = _vectors(answer)
            n_dims = probes.shape[1]
            return FarEmbedder(f"engine:{answer.model}:{n_dims}", n_dims, ask, probes)


def known(connection: apsw.Connection, found: FarEmbedder) -> FarEmbedder:
    """Inside a write: the embedder by the name that its vectors have: `engine:MODEL:N`, or `engine:MODEL:N#2` for the next of that name."""
    number, name = 1, found.name
    while (probes := tables.probes_of(connection, name)) is not None:
        if alike(unpacked(probes), found.probes):
            return msgspec.structs.replace(found, name=name)
        number += 1
        name = f"{found.name}#{number}"
    tables.keep_probes(connection, name, packed(found.probes))
    return msgspec.structs.replace(found, name=name)


def alike(one: Vectors, other: Vectors) -> bool:
    """Whether each row of one is near that of the other."""
    cosines = np.sum(normed(one.copy()) * other, axis=1)
    return bool(np.all(cosines >= SAME_COSINE))


def _vectors(answer: Embeddings) -> Vectors:
    return normed(np.asarray(answer.vectors, dtype=np.float32))
