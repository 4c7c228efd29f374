"""A crowd of agents against an OpenAI-compatible endpoint: the load of the `workload` bench.

Every agent carries the same head of rules, and a field and a task of its own. Each turn asks for exactly so many tokens:
the end token is banned, so that every server does the same work. Between turns the agent waits as if a tool ran.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter

import anyio
import httpx
import msgspec
from msgspec import Struct

from aios.bench.bench import Shape
from aios.bench.children import BenchFailed

TOOL_S = 0.3
"""Mean time of a tool; each run of one takes between half and one and a half of it."""
END_TOKEN = 2
"""The end token of the default model."""
CALL_WITHIN_S = 600.0

_NOUNS = (
    *("invoice", "meeting", "train", "hotel", "garden", "bridge", "library", "engine", "river", "window"),
    *("ticket", "museum", "budget", "kitchen", "school", "ladder", "letter", "market", "winter", "picture"),
)  # fmt: skip
_RULE = (
    "Rule {}: before you use tool {}, say which argument you give it, what you expect to learn from its answer, and "
    "what you will do next."
)


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None


class _Event(msgspec.Struct):
    """What is read of a `chat.completion.chunk`."""

    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


Said = Mapping[str, str]
"""A message, with `role` and `content`."""


class Turn(Struct, frozen=True):
    """One answered call."""

    first_s: float
    """To the first text."""
    total_s: float
    n_prompt_tokens: int
    n_cached_tokens: int
    n_tokens: int


@dataclass
class Outcome:
    """What a run of the load brought."""

    makespan_s: float = 0.0
    turns: list[Turn] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    prompts: list[list[tuple[Said, ...]]] = field(default_factory=list)
    """The conversations that each agent sent, turn by turn."""

    @property
    def n_computed_tokens(self) -> int:
        """Prompt tokens that the server says it did not have in a cache."""
        return sum(turn.n_prompt_tokens - turn.n_cached_tokens for turn in self.turns)


class Script(Struct, frozen=True):
    """All that one agent will say; drawn before the clock starts."""

    system: str
    task: str
    results: Sequence[tuple[str, float]]
    """What the tool says after each turn, and how long it takes."""


class Asked(Struct, frozen=True):
    """Whom an agent asks, as whom, and for how much."""

    client: httpx.AsyncClient
    key: str
    max_tokens: int


class CallFailed(BenchFailed):
    """A call was not answered as it should be."""


def scripts(shape: Shape, seed: int) -> list[Script]:
    """The same seed gives the same agents."""
    random = Random(seed)  # noqa: S311 - not for secrets
    head = "You work in an office with other agents. These rules hold for all.\n" + "\n".join(
        _RULE.format(i, i) for i in range(shape.n_rules)
    )

    def words(n: int) -> str:
        return " ".join(random.choice(_NOUNS) for _ in range(n))

    return [
        Script(
            system=f"{head}\nYou are number {i}. You know about: {words(20)}.",
            task=f"Please look into this: {words(60)}",
            results=[
                (f"The tool says: {words(40)}", TOOL_S * random.uniform(0.5, 1.5))
                for _ in range(shape.n_turns - 1)
            ],
        )
        for i in range(shape.n_agents)
    ]


async def run_load(
    base_url: str, key_of: Callable[[int], str], shape: Shape, *, seed: int
) -> Outcome:
    """Let all agents run at once; failures are counted, never raised.

    Args:
        base_url: Ends in `/v1`.
        key_of: The API key of each agent.
        shape: How many, how long.
        seed: Of the agents' texts.
    """
    outcome = Outcome()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=base_url, timeout=CALL_WITHIN_S, limits=limits, trust_env=False
    ) as client:
        begun_s = perf_counter()
        async with anyio.create_task_group() as tasks:
            for i, script in enumerate(scripts(shape, seed)):
                asked = Asked(client, key_of(i), shape.max_tokens)
                tasks.start_soon(_agent, asked, script, outcome)
        outcome.makespan_s = perf_counter() - begun_s
    return outcome


async def warm_up(base_url: str, key: str) -> None:
    """One short call that shares nothing with the load.

    Raises:
        CallFailed: It was not answered.
    """
    async with httpx.AsyncClient(
        base_url=base_url, timeout=CALL_WITHIN_S, trust_env=False
    ) as client:
        await ask(client, key, [{"role": "user", "content": "Say hello in five words."}], 8)


async def _agent(asked: Asked, script: Script, outcome: Outcome) -> None:
    messages: list[Said] = [
        {"role": "system", "content": script.system},
        {"role": "user", "content": script.task},
    ]
    prompts: list[tuple[Said, ...]] = []
    outcome.prompts.append(prompts)
    try:
        for result, tool_s in (*script.results, ("", 0.0)):
            prompts.append(tuple(messages))
            answer, turn = await ask(asked.client, asked.key, messages, asked.max_tokens)
            outcome.turns.append(turn)
            await anyio.sleep(tool_s)
            messages.append({"role": "assistant", "content": answer})
            messages.append({"role": "user", "content": result})
    except CallFailed as error:
        outcome.failures.append(str(error))


async def ask(
    client: httpx.AsyncClient, key: str, messages: Sequence[Said], max_tokens: int
) -> tuple[str, Turn]:
    """One streamed call that must bring exactly `max_tokens` tokens.

    Raises:
        CallFailed: It did not.
    """
    body = {
        "model": "default",
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logit_bias": {str(END_TOKEN): -100},
    }
    begun_s = perf_counter()
    first_s, usage, pieces = None, None, []
    try:
        async with client.stream(
            "POST", "/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            if response.status_code != httpx.codes.OK:
                text = (await response.aread())[:300].decode(errors="replace")
                raise CallFailed(f"HTTP {response.status_code}: {text}")
            async for event in _events(response):
                usage = event.usage or usage
                for piece in (choice.delta.content for choice in event.choices):
                    if piece:
                        first_s = first_s or perf_counter() - begun_s
                        pieces.append(piece)
    except (httpx.HTTPError, msgspec.DecodeError) as error:
        raise CallFailed(f"{type(error).__name__}: {error}"[:300]) from error
    total_s = perf_counter() - begun_s
    return "".join(pieces), _turn(usage, first_s or total_s, total_s, max_tokens)


async def _events(response: httpx.Response) -> AsyncIterator[_Event]:
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield _decode_event(data)


def _turn(usage: _Usage | None, first_s: float, total_s: float, max_tokens: int) -> Turn:
    if usage is None or usage.completion_tokens != max_tokens:
        n_tokens = usage.completion_tokens if usage else "an unknown number of"
        raise CallFailed(f"{n_tokens} tokens came where {max_tokens} were asked for")
    details = usage.prompt_tokens_details or _Details()
    return Turn(first_s, total_s, usage.prompt_tokens, details.cached_tokens, max_tokens)
