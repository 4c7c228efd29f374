"""Vectors of texts: the mean of the model's last hidden states, at length 1."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aios.engine.llama.binding import Batch, Context, Model
from aios.engine.llama.outbox import Outbox, Reply
from aios.engine.llama.sampling import Tokens
from aios.errors import AiosError, EngineFailed

Vectors = tuple[tuple[float, ...], ...]

CHUNK_TOKENS = 256
"""Computed between two steps of the generations; also the least that the context holds."""


@dataclass(eq=False)
class EmbedRequest:
    """Texts to be turned into vectors, each of at least one token; `is_closed` when nobody waits any more."""

    texts: Sequence[Tokens]
    reply: Reply[Vectors]
    is_closed: bool = False


class Embedder:
    """Computes vectors in the engine's thread, in a context of its own that is made when it is first needed.

    llama.cpp's own mean pooling needs a whole text in one batch; adding up here takes texts of any length in chunks.
    """

    def __init__(self, model: Model, outbox: Outbox, *, n_threads: int) -> None:
        self._model = model
        self._outbox = outbox
        self._n_threads = n_threads
        self._context: Context | None = None
        self._batch = Batch(CHUNK_TOKENS)
        self._requests: deque[EmbedRequest] = deque()
        self._chunks: Iterator[None] = iter(())

    @property
    def has_work(self) -> bool:
        """Whether a request waits or is being computed."""
        return bool(self._requests)

    def add(self, request: EmbedRequest) -> None:
        """Put a request at the end of the queue."""
        self._requests.append(request)
        if len(self._requests) == 1:
            self._chunks = self._compute(request)

    def step(self) -> None:
        """Compute one chunk of the first request."""
        for _ in self._chunks:
            return
        self._requests.popleft()
        if self._requests:
            self._chunks = self._compute(self._requests[0])

    def close(self) -> None:
        """Free the context."""
        if self._context is not None:
            self._context.close()
            self._context = None

    def _compute(self, request: EmbedRequest) -> Iterator[None]:
        try:
            context = self._context_for(max(len(text) for text in request.texts))
            vectors = []
            for text in request.texts:
                context.keep(0, 0)
                total = np.zeros(self._model.n_embd, np.float64)
                for start in range(0, len(text), CHUNK_TOKENS):
                    if request.is_closed:
                        return
                    total += self._sum(context, start, text[start : start + CHUNK_TOKENS])
                    yield
                vectors.append(tuple((total / np.linalg.norm(total)).tolist()))
        except AiosError as error:
            self._outbox.put(request.reply.fail, error)
        else:
            self._outbox.put(request.reply.receive, tuple(vectors))

    def _sum(self, context: Context, start: int, tokens: Tokens) -> NDArray[np.float64]:
        """The sum of the hidden states of a chunk."""
        self._batch.clear()
        self._batch.add(0, start, tokens)
        self._batch.want_all()
        if not context.decode(self._batch):
            raise EngineFailed("llama.cpp broke off an embedding")
        total: NDArray[np.float64] = context.embeddings(len(tokens)).sum(axis=0, dtype=np.float64)
        return total

    def _context_for(self, n_tokens: int) -> Context:
        """A context with room for `n_tokens`; made anew, at least twice as large, when the present one is too small."""
        if self._context is None or self._context.window_tokens < n_tokens:
            self.close()
            self._context = Context(
                self._model,
                n_slots=1,
                window_tokens=max(CHUNK_TOKENS, 1 << (n_tokens - 1).bit_length()),
                n_batch=CHUNK_TOKENS,
                n_threads=self._n_threads,
                flash=True,
                embeddings=True,
            )
        return self._context
