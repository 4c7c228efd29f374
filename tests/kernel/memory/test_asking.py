import anyio
import numpy as np
import pytest

from aios.abi.calls import Embeddings
from aios.abi.types import Usage
from aios.errors import EngineUnavailable, InvalidCall
from aios.kernel.memory import asking
from aios.kernel.memory.asking import FarEmbedder, find_embedder

pytestmark = pytest.mark.anyio


class Endpoint:
    """Answers with vectors of three numbers, after so many failures; refuses texts with `bad` in them."""

    def __init__(self, n_failures: int = 0) -> None:
        self.n_failures = n_failures
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, texts: tuple[str, ...]) -> Embeddings:
        self.asked.append(texts)
        if self.n_failures:
            self.n_failures -= 1
            raise EngineUnavailable("it is down", hint="wait")
        if any("bad" in text for text in texts):
            raise InvalidCall("too long", hint="send less")
        return Embeddings(tuple((float(len(text)), 1.0, 0.0) for text in texts), Usage(), "small")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.001)


async def test_it_is_found_when_the_engine_answers_and_named_by_model_and_length() -> None:
    with anyio.fail_after(5):
        found = await find_embedder(Endpoint(n_failures=3))
    assert (found.name, found.n_dims) == ("engine:small:3", 3)


async def test_a_text_that_is_refused_gets_no_vector_and_holds_up_no_other() -> None:
    endpoint = Endpoint(n_failures=2)
    embedder = FarEmbedder("engine:small:3", 3, endpoint)
    with anyio.fail_after(5):
        rows = await embedder.embed_some(["one", "two", "a bad one", "four", "five"])
    assert [row is None for row in rows] == [False, False, True, False, False]
    first = rows[0]
    assert first is not None
    assert np.allclose(np.linalg.norm(first), 1)


async def test_vectors_of_another_length_are_no_vectors_of_this_model() -> None:
    with pytest.raises(EngineUnavailable, match="shape"):
        await FarEmbedder("engine:small:4", 4, Endpoint()).embed(["one"])
