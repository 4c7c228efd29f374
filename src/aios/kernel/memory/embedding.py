"""Texts into vectors that are near when the texts mean the like.

The default is wordllama: token vectors, averaged; its weights lie in its wheel and it never touches the network when it is told
so. Without the extra `memory` there is none, and notes are found by their words alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

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


class WordLlamaEmbedder:
    """Vectors of 256 numbers from wordllama. Cost: 0.15 s to load, 35 MB; 15 us a short text in batches."""

    name = "wordllama-0.4-256"
    n_dims = 256

    def __init__(self) -> None:
        import wordllama  # noqa: PLC0415 - an optional extra that takes 0.1 s to import

        # Its own search for the tokenizer looks elsewhere and then asks the network; its package's folder has both files.
        folder = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text."""
        vectors = np.asarray(self._model.embed(list(texts)), dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        normed: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return normed
