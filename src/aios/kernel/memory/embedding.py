"""Texts into vectors that are near when the texts mean the like.

The default is wordllama: token vectors, averaged; its weights lie in its wheel and it never touches the network when it is told
so. Without the extra `memory` there is none, and notes are found by their words alone.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

SCALE = 127.0
"""The largest number of a packed vector."""

Vectors = npt.NDArray[np.float32]
"""One row a text, of length 1 (or 0 for a text without a known token)."""


class Embedder(Protocol):
    """Turns texts into vectors. Several threads may call it at once."""

    name: str
    """Goes with every vector; vectors of two names are never compared."""
    n_dims: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text."""
        ...


@contextmanager
def _logging_untouched() -> Iterator[None]:
    """An import inside cannot set up the root logger: wordllama's makes it print what every library says."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # `basicConfig` does nothing to a logger that has one
    try:
        yield
    finally:
        root.removeHandler(handler)


class WordLlamaEmbedder:
    """Vectors of 256 numbers from wordllama. Cost: 0.15 s to load, 35 MB; 40 us for a text of 20 words, 30 ms for 64 KiB."""

    name = "wordllama-0.4-256"
    n_dims = 256

    def __init__(self) -> None:
        # Sharing out few short texts among threads costs as much as their tokens do.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        with _logging_untouched():
            import wordllama  # noqa: PLC0415 - an optional extra that takes 0.1 s to import

        # Its own search for the tokenizer looks elsewhere and then asks the network; its package's folder has both files.
        folder = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        self.tokens: npt.NDArray[np.float32] = model.embedding
        self.tokenizer = model.tokenizer
        self.tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text.

        Its own `embed` pads all texts of a batch to the longest, which is twice as slow, and takes 1 GB when one has 64 KiB.
        """
        vectors = np.zeros((len(texts), self.n_dims), dtype=np.float32)
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for vector, each in zip(vectors, encoded, strict=True):
            if each.ids:
                add_up(self.tokens, each.ids, vector)
        return normed(vectors)


def add_up(tokens: Vectors, ids: Sequence[int], total: Vectors) -> None:
    """Put the sum of these rows into `total`."""
    # Every id is one of the table: to clip them saves numpy the look at each before the copy.
    np.add.reduce(tokens.take(ids, axis=0, mode="clip"), axis=0, out=total)


def normed(vectors: Vectors) -> Vectors:
    """The vectors with length 1, in place; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return scaled


def packed(vectors: Vectors) -> list[bytes]:
    """Each vector as 8-bit numbers: a quarter of the bytes, and cosines that differ by less than 0.01."""
    if not len(vectors):
        return []
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
    return [row.tobytes() for row in np.round(vectors / largest * SCALE).astype(np.int8)]


def unpacked(rows: Sequence[bytes]) -> Vectors:
    """What `packed` wrote, but for the length of each vector."""
    numbers = np.frombuffer(b"".join(rows), dtype=np.int8)
    return numbers.reshape(len(rows), -1).astype(np.float32)
