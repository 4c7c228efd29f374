"""An embedder that is far away: an engine's `embed`, also that of an endpoint, asked through a call of init's.

Nobody waits for it when a note is written: notes without a vector are found by their words, and the indexer asks for some of them
at a time as long as it takes.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import numpy as np
from msgspec import Struct

from aios.abi.calls import Embeddings
from aios.errors import AiosError, DeadlineExceeded, EngineUnavailable, KernelStopping
from aios.kernel.memory.embedding import Vectors, normed

Ask = Callable[[tuple[str, ...]], Awaitable[Embeddings]]
"""Makes the call; raises what it raises."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
TRANSIENT = (EngineUnavailable, DeadlineExceeded)
"""Errors that another try may not meet; the others are the text's fault."""


class FarEmbedder(Struct, frozen=True):
    """An engine whose vectors have been seen once, so that their length is known."""

    name: str
    n_dims: int
    ask: Ask

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text.

        Raises:
            AiosError: The call failed, or the vectors have another length than before.
        """
        vectors = _vectors(await self.ask(tuple(texts)))
        if vectors.shape != (len(texts), self.n_dims):
            raise EngineUnavailable(
                f"{self.name} gave vectors of the shape {vectors.shape} for {len(texts)} texts",
                hint="another model answers under that name: restart the kernel",
            )
        return vectors

    async def embed_some(self, texts: Sequence[str]) -> list[Vectors | None]:
        """The vector of each text as one row; None for a text that it refuses.

        It tries again, with growing pauses, until it has an answer for each.
        """
        pause_s, found = FIRST_PAUSE_S, list[Vectors | None]()
        n_at_once = len(texts)
        while len(found) < len(texts):
            part = texts[len(found) : len(found) + n_at_once]
            try:
                vectors = await self.embed(part)
            except TRANSIENT:
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except KernelStopping:
                raise
            except AiosError:
                if len(part) == 1:
                    found.append(None)
                n_at_once = max(1, len(part) // 2)
            else:
                found += [vectors[place : place + 1] for place in range(len(part))]
                pause_s = FIRST_PAUSE_S
        return found


async def find_embedder(ask: Ask) -> FarEmbedder:
    """Ask until an engine answers, with growing pauses: which model it is, and how long its vectors are."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            answer = await ask(("probe",))
        except KernelStopping:
            raise
        except AiosError:
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            n_dims = len(answer.vectors[0])
            return FarEmbedder(f"engine:{answer.model}:{n_dims}", n_dims, ask)


def _vectors(answer: Embeddings) -> Vectors:
    return normed(np.asarray(answer.vectors, dtype=np.float32))
