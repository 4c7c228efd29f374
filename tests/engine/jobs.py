"""Jobs for engines, and ways to run them: what the contract's tests share."""

from dataclasses import dataclass, field

import anyio
import pytest

from aios.abi.types import (
    Constraint,
    Finish,
    Message,
    Role,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolChoice,
    ToolSpec,
    Usage,
)
from aios.engine.base import (
    Ability,
    ChatPrompt,
    Delta,
    Engine,
    Job,
    Sequence,
    Suspended,
)

PATIENCE_S = 60
GREEDY = Sampling(temperature=0, top_k=0, top_p=1, min_p=0, seed=1)
STORY = "Tell me a long story about a lighthouse and its keeper."
ADD = ToolSpec(
    "add",
    "Adds two small numbers.",
    {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 9},
            "b": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)
LIGHT = ToolSpec(
    "light",
    "Switches the light.",
    {
        "type": "object",
        "properties": {"state": {"enum": ["on", "off"]}},
        "required": ["state"],
        "additionalProperties": False,
    },
)
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["letter", "report", "poem"]},
        "is_long": {"type": "boolean"},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "flags": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["kind", "is_long", "stars", "flags"],
    "additionalProperties": False,
}
EMOJI = "naïve 👩‍👩‍👧 😀 漢字 🇪🇺"


@dataclass
class Outcome:
    """A generation that was read to its end."""

    deltas: list[Delta] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def n_tokens(self) -> int:
        return sum(delta.n_tokens for delta in self.deltas)

    @property
    def finish(self) -> Finish:
        finish = self.deltas[-1].finish
        assert finish is not None
        return finish

    @property
    def usage(self) -> Usage:
        usage = self.deltas[-1].usage
        assert usage is not None
        return usage

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [call for delta in self.deltas for call in delta.tool_calls]

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [row for delta in self.deltas for row in delta.logprobs]


def chat(
    text: str = STORY,
    *,
    prompt: ChatPrompt | None = None,
    sampling: Sampling = GREEDY,
    max_tokens: int | None = 24,
    stop: tuple[str, ...] = (),
    constraint: Constraint | None = None,
    top_logprobs: int | None = None,
) -> Job:
    """A job for one user message, or another prompt; greedy unless it is said otherwise."""
    return Job(
        prompt=prompt or ChatPrompt((Message(Role.USER, text),)),
        sampling=sampling,
        max_tokens=max_tokens,
        stop=stop,
        constraint=constraint,
        top_logprobs=top_logprobs,
    )


def with_tools(text: str, choice: ToolChoice, *tools: ToolSpec) -> Job:
    """A chat job with tools."""
    return chat(prompt=ChatPrompt((Message(Role.USER, text),), tools, choice), max_tokens=200)


async def read_all(
    sequence: Sequence, outcome: Outcome | None = None, *, pause_s: float = 0
) -> Outcome:
    """Read to the end, slowly if asked to; what has come so far is in `outcome`, whatever happens."""
    outcome = Outcome() if outcome is None else outcome
    while not outcome.deltas or outcome.deltas[-1].finish is None:
        await anyio.sleep(pause_s)
        outcome.deltas.append(await sequence.read())
    return outcome


async def run(engine: Engine, job: Job) -> Outcome:
    """Open, read to the end, close."""
    with anyio.fail_after(PATIENCE_S):
        sequence = await engine.open(job)
        try:
            return await read_all(sequence)
        finally:
            await sequence.close()


def need(engine: Engine, *abilities: Ability) -> None:
    """Skip what the engine does not claim."""
    for ability in abilities:
        if ability not in engine.capabilities.abilities:
            pytest.skip(f"the engine does not claim {ability.value}")


async def assert_alive(engine: Engine) -> None:
    """All slots are free and the engine answers."""
    assert engine.statistics().n_running == 0
    outcome = await run(engine, chat("Say hello.", max_tokens=4))
    assert outcome.n_tokens >= 1
    assert engine.statistics().n_running == 0


async def resume(engine: Engine, job: Job, suspended: Suspended) -> Sequence:
    """Put a suspended generation back."""
    with anyio.fail_after(PATIENCE_S):
        return await engine.open(job, suspended)


async def run_with_interruptions(engine: Engine, job: Job) -> tuple[Outcome, int]:
    """Suspend and resume after every read; also how often that was."""
    outcome = Outcome()
    suspended: Suspended | None = None
    n_suspended = 0
    with anyio.fail_after(PATIENCE_S):
        while True:
            sequence = await engine.open(job, suspended)
            try:
                outcome.deltas.append(await sequence.read())
                if outcome.deltas[-1].finish is not None:
                    return outcome, n_suspended
                suspended = await sequence.suspend()
                n_suspended += 1
                assert outcome.text.startswith(suspended.emitted)
            finally:
                await sequence.close()
