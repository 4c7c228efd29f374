import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.retrieval import meaning
from aios.kernel.retrieval.meaning import WordBagEmbedder, words_of


@given(st.text() | st.text(st.characters(max_codepoint=127)))
def test_words_are_runs_of_letters_and_digits_in_ascii_and_beyond(text: str) -> None:
    assert words_of(text) == re.findall(r"[^\W_]+", text)


def test_a_text_has_the_same_vector_whatever_words_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [
        "the boat is red",
        "",
        "a café by the sea_side",
        "the boat is blue, and so is the café",
    ]
    alone = [WordBagEmbedder().embed([text])[0] for text in texts]
    monkeypatch.setattr(meaning, "MAX_KNOWN_WORDS", 6)
    embedder = WordBagEmbedder()
    for _ in range(3):
        assert np.array_equal(embedder.embed(texts), alone)
    assert np.array_equal(embedder.embed(texts[::-1]), alone[::-1])
    assert not alone[1].any()
