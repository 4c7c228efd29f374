"""Short ways to write calls in tests."""

from aios.abi.calls import Chat
from aios.abi.types import Message, Role, Sampling
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine


def chat(
    text: str = "hello", *, max_tokens: int | None = None, deadline_s: float | None = None
) -> Chat:
    """A conversation of one message, with a fixed seed."""
    return Chat(
        messages=(Message(Role.USER, text),),
        sampling=Sampling(seed=1),
        max_tokens=max_tokens,
        deadline_s=deadline_s,
    )


def slow_engine(
    *, n_slots: int = 1, n_tokens: int = 1000, token_delay_s: float = 0.002
) -> ScriptedEngine:
    """An engine whose answers take `n_tokens * token_delay_s`."""
    return ScriptedEngine(
        n_slots=n_slots, script=Script(answer_tokens=n_tokens, token_delay_s=token_delay_s)
    )
