"""The real model, loaded once for each test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aios.engine.llama.binding import Context, Model
from aios.engine.models import find_model


@pytest.fixture(scope="session")
def model_path() -> Path:
    return find_model("")


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[Model]:
    model = Model(model_path)
    yield model
    model.close()


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    """Three slots of 256 tokens. One thread: several test processes would wait for each other's at every barrier."""
    context = Context(model, n_slots=3, window_tokens=256, n_batch=64, n_threads=1)
    yield context
    context.close()
