import math

import anyio
import numpy as np
import pytest

from aios.engine.llama.binding import Model
from aios.engine.llama.embedding import CHUNK_TOKENS, Embedder, EmbedRequest, Vectors
from aios.engine.llama.outbox import Outbox, Reply

pytestmark = [pytest.mark.model, pytest.mark.anyio]


def request(model: Model, *texts: str) -> EmbedRequest:
    return EmbedRequest([model.tokenize(text, special=False) for text in texts], Reply())


async def vectors_of(model: Model, *texts: str) -> Vectors:
    """What a fresh embedder makes of texts."""
    outbox = Outbox()
    embedder = Embedder(model, outbox, n_threads=1)
    asked = request(model, *texts)
    embedder.add(asked)
    while embedder.has_work:
        embedder.step()
    outbox.flush()
    embedder.close()
    with anyio.fail_after(30):
        return await asked.reply.wait()


async def test_vectors_have_length_1_and_do_not_depend_on_their_neighbours(model: Model) -> None:
    both = await vectors_of(model, "the sea at night", "a tax report of the last quarter")
    for vector in both:
        assert len(vector) == model.n_embd
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    (alone,) = await vectors_of(model, "a tax report of the last quarter")
    assert both[1] == pytest.approx(alone, abs=1e-5)
    assert both[0] != pytest.approx(alone, abs=1e-2)


async def test_a_text_longer_than_a_chunk_is_one_vector_all_the_same(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "The keeper lit the lamp and wrote in his book. " * 4
    (whole,) = await vectors_of(model, text)
    monkeypatch.setattr("aios.engine.llama.embedding.CHUNK_TOKENS", 16)
    (cut,) = await vectors_of(model, text)
    assert np.dot(whole, cut) == pytest.approx(1, abs=1e-3)


async def test_each_step_computes_one_chunk_so_that_generations_go_on(model: Model) -> None:
    outbox = Outbox()
    embedder = Embedder(model, outbox, n_threads=1)
    asked = request(model, "one", "two", "three")
    embedder.add(asked)
    n_steps = 0
    while embedder.has_work:
        embedder.step()
        n_steps += 1
    embedder.close()
    assert n_steps == 4  # a chunk for each text, and one to answer
    assert CHUNK_TOKENS >= 3


async def test_a_request_that_nobody_waits_for_is_dropped(model: Model) -> None:
    outbox = Outbox()
    embedder = Embedder(model, outbox, n_threads=1)
    dropped, wanted = request(model, "one", "two"), request(model, "three")
    embedder.add(dropped)
    embedder.add(wanted)
    dropped.is_closed = True
    for _ in range(3):
        embedder.step()
    outbox.flush()
    embedder.close()
    assert not embedder.has_work
    with anyio.fail_after(30):
        assert len(await wanted.reply.wait()) == 1


async def test_the_context_grows_with_the_longest_text(model: Model) -> None:
    outbox = Outbox()
    embedder = Embedder(model, outbox, n_threads=1)
    short, long = request(model, "one"), request(model, "word " * 260)
    embedder.add(short)
    embedder.step()
    assert embedder._context is not None
    assert embedder._context.window_tokens == 256
    embedder.add(long)
    while embedder.has_work:
        embedder.step()
    assert embedder._context.window_tokens == 512
    embedder.close()
    embedder.close()
