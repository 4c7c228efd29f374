"""Generations for tests that need no engine around them."""

import numpy as np

from aios.abi.types import Sampling
from aios.engine.base import Delta
from aios.engine.llama.binding import Model, Tokens
from aios.engine.llama.generation import Carried, Generation, Speech
from aios.engine.llama.sampling import Sampler
from aios.engine.text import TextAssembler
from aios.errors import AiosError


class Listener:
    """A reader that keeps what it hears."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.errors: list[AiosError] = []

    def receive(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def fail(self, error: AiosError) -> None:
        self.errors.append(error)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def greedy(model: Model, prompt: Tokens, *, n_output: int = 8) -> tuple[Generation, Listener]:
    """A greedy generation of exactly so many tokens, and who listens to it."""
    listener = Listener()
    generation = Generation(
        start=np.asarray(prompt, np.int32),
        n_prompt=len(prompt),
        n_max=len(prompt) + n_output,
        sampler=Sampler(Sampling(temperature=0, seed=1)),
        speech=Speech(model.piece, frozenset()),
        carried=Carried(TextAssembler()),
        reader=listener,
    )
    return generation, listener
