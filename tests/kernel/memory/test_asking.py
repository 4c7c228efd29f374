import random
from contextlib import closing

import anyio
import apsw
import msgspec
import numpy as np
import pytest

from aios.abi.calls import Embeddings
from aios.abi.types import Usage
from aios.disk.migrations import migrate
from aios.errors import (
    AiosError,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    InvalidCall,
    RateLimited,
    ResourceExhausted,
    Unsupported,
)
from aios.kernel.memory import asking
from aios.kernel.memory.asking import OtherModelError, alike, find_embedder, known
from aios.kernel.memory.embedding import normed, packed, unpacked
from aios.kernel.memory.schema import SCHEMA

pytestmark = pytest.mark.anyio


class Endpoint:
    """Answers with vectors that a seed makes of each text, after so many failures; refuses texts with `bad` in them."""

    failure: type[AiosError] = EngineUnavailable

    def __init__(self, n_failures: int = 0, *, seed: str = "", n_dims: int = 8) -> None:
        self.n_failures = n_failures
        self.seed = seed
        self.n_dims = n_dims

    async def __call__(self, texts: tuple[str, ...]) -> Embeddings:
        if self.n_failures:
            self.n_failures -= 1
            raise self.failure("it is down", hint="wait")
        if any("bad" in text for text in texts):
            raise InvalidCall("too long", hint="send less")
        return Embeddings(tuple(map(self.vector, texts)), Usage(), "small")

    def vector(self, text: str) -> tuple[float, ...]:
        draw = random.Random(f"{self.seed} {text}")  # noqa: S311 - repeatable on purpose
        return tuple(draw.gauss(0, 1) for _ in range(self.n_dims))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(asking, "LONGEST_PAUSE_S", 0.002)


async def test_it_is_found_when_the_engine_answers_and_named_by_model_and_length() -> None:
    with anyio.fail_after(30):
        found = await find_embedder(Endpoint(n_failures=3))
    assert (found.name, found.n_dims) == ("engine:small:8", 8)


async def test_a_text_that_is_refused_gets_no_vector_and_holds_up_no_other() -> None:
    embedder = await find_embedder(Endpoint(n_failures=2))
    with anyio.fail_after(30):
        rows = await embedder.embed_some(["one", "two", "a bad one", "four", "five"])
    assert [row is None for row in rows] == [False, False, True, False, False]
    first = rows[0]
    assert first is not None
    assert np.allclose(np.linalg.norm(first), 1)
    assert np.allclose(first, await embedder.embed(["one"]), atol=1e-6)


@pytest.mark.parametrize(
    "failure", [RateLimited, ResourceExhausted, EngineRefused, EngineFailed, Unsupported]
)
async def test_what_is_not_the_fault_of_a_text_costs_it_no_vector(
    failure: type[AiosError],
) -> None:
    endpoint = Endpoint()
    embedder = await find_embedder(endpoint)
    endpoint.failure, endpoint.n_failures = failure, 20
    with anyio.fail_after(30):
        rows = await embedder.embed_some(["one", "two", "a bad one", "four"])
    assert [row is None for row in rows] == [False, False, True, False]


async def test_a_text_with_which_an_endpoint_breaks_gets_no_vector() -> None:
    class Breaking(Endpoint):
        async def __call__(self, texts: tuple[str, ...]) -> Embeddings:
            if any("bad" in text for text in texts):
                raise EngineFailed("it broke")
            return await super().__call__(texts)

    embedder = await find_embedder(Breaking())
    with anyio.fail_after(30):
        rows = await embedder.embed_some(["a bad one", "two"])
    assert [row is None for row in rows] == [True, False]


@pytest.mark.parametrize("other", [Endpoint(seed="other"), Endpoint(n_dims=4)])
async def test_another_model_behind_the_same_name_is_noticed(other: Endpoint) -> None:
    embedder = msgspec.structs.replace(await find_embedder(Endpoint()), ask=other)
    with pytest.raises(OtherModelError):
        await embedder.embed_some(["one"])


async def test_models_of_one_name_are_told_apart_by_what_they_make_of_the_probes() -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        migrate(connection, (SCHEMA,))
        names = []
        for seed in ("one", "other", "one", "third", "other"):
            found = await find_embedder(Endpoint(seed=seed))
            names.append(known(connection, found).name)
    base = "engine:small:8"
    assert names == [base, f"{base}#2", base, f"{base}#3", f"{base}#2"]


async def test_one_model_is_the_same_when_its_vectors_are_a_little_off() -> None:
    one = (await find_embedder(Endpoint())).probes
    noise = np.random.default_rng(1).normal(size=one.shape).astype(np.float32)
    assert alike(unpacked(packed(one)), one)
    assert alike(normed(one + 0.03 * noise), one)
    assert not alike(normed(one + 0.3 * noise), one)
