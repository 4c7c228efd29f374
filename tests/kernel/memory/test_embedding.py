import socket
import subprocess
import sys

import numpy as np
import pytest

from aios.kernel.memory.embedding import WordLlamaEmbedder


def test_the_like_are_near_and_nothing_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    embedder = WordLlamaEmbedder()
    vectors = embedder.embed(["The user prefers vegetarian food", "Berlin is a city", ""])
    query = embedder.embed(["Which food does the user like?"])[0]
    assert vectors.shape == (3, embedder.n_dims)
    assert vectors[0] @ query > 0.3 > vectors[1] @ query
    assert np.allclose(np.linalg.norm(vectors[:2], axis=1), 1, atol=1e-5)
    assert np.isfinite(vectors).all()


def test_a_text_has_one_vector_however_it_is_grouped() -> None:
    embedder = WordLlamaEmbedder()
    texts = ["short", "a longer text about ships and the sea", "x " * 30_000]
    together = embedder.embed(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.allclose(embedder.embed([text])[0], vector, atol=1e-6)


def test_loading_it_leaves_the_logging_of_the_program_alone() -> None:
    code = (
        "import logging; from aios.kernel.memory.embedding import WordLlamaEmbedder as Embedder; Embedder(); "
        "root = logging.getLogger(); print(root.handlers, root.level == logging.WARNING)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    assert said.stdout.split("\n")[0] == "[] True"
