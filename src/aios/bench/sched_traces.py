"""Made-up crowds of agents, by which policies are compared: named, seeded, the same on every machine. Pure.

Sizes are those of small agents on a small model: prompts of a hundred tokens that grow turn by turn, answers of some tens.
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from aios.abi.trace import TracedAgent, TracedCall

SEED = 7
INTERACTIVE, BATCH = "interactive", "batch"


class Talk(Struct, frozen=True):
    """What an agent's conversation is like: the first prompt, what each turn adds to it, the answers, the pauses."""

    n_calls: int
    head_tokens: int
    turn_tokens: int
    output_tokens: tuple[int, int]
    gap_s: float = 0.3
    deadline_s: float | None = None


def conversation(talk: Talk, random: Random) -> tuple[TracedCall, ...]:
    """Calls of one agent: each prompt is what was said before, whose pages are kept, and something new."""
    calls = []
    n_before = 0
    for number in range(talk.n_calls):
        n_prompt = n_before + (talk.turn_tokens if number else talk.head_tokens)
        n_output = random.randint(*talk.output_tokens)
        gap_s = round(random.expovariate(1 / talk.gap_s), 4) if talk.gap_s else 0.0
        calls.append(TracedCall(n_prompt, n_output, n_before, gap_s, talk.deadline_s))
        n_before = n_prompt + n_output
    return tuple(calls)


def poisson(n: int, per_s: float, random: Random) -> Iterator[float]:
    """So many times of arrival, at that rate on average."""
    at_s = 0.0
    for _ in range(n):
        at_s += random.expovariate(per_s)
        yield round(at_s, 4)


def interactive_among_batch(random: Random) -> list[TracedAgent]:
    """30 short calls of people among 24 long agents that began together."""
    long, short = Talk(4, 300, 60, (120, 200)), Talk(1, 60, 0, (12, 24), 0.0)
    agents = [
        TracedAgent(round(random.uniform(0, 1), 4), conversation(long, random), "jobs", 0, BATCH)
        for _ in range(24)
    ]
    agents += [
        TracedAgent(at_s, conversation(short, random), "people", 0, INTERACTIVE)
        for at_s in poisson(30, 0.5, random)
    ]
    return agents


def one_owner(random: Random) -> list[TracedAgent]:
    """The same, all of them made by one owner, as on a machine that nobody shares."""
    return [replace(agent, owner="me") for agent in interactive_among_batch(random)]


def ten_times_the_agents(random: Random) -> list[TracedAgent]:
    """Four owners of equal right; one of them has 160 agents, the others 16."""
    talk = Talk(3, 120, 40, (24, 48))
    counts = {"many": 160, "ann": 16, "bob": 16, "eve": 16}
    return [
        TracedAgent(round(random.uniform(0, 1), 4), conversation(talk, random), owner, 0, owner)
        for owner, n in counts.items()
        for _ in range(n)
    ]


def heavy_tail(random: Random) -> list[TracedAgent]:
    """300 calls as they come, most of them short and a few very long (Pareto, 1.1)."""
    return [
        TracedAgent(
            at_s, (TracedCall(60, min(2000, int(12 * random.paretovariate(1.1)))),), f"u{i}"
        )
        for i, at_s in enumerate(poisson(300, 2.0, random))
    ]


def deadlines(random: Random) -> list[TracedAgent]:
    """60 agents in no hurry, and 60 calls of which each must be done within 4 to 20 s."""
    agents = [
        TracedAgent(at_s, conversation(Talk(3, 120, 40, (60, 100)), random), "jobs", 0, BATCH)
        for at_s in poisson(60, 1.0, random)
    ]
    for at_s in poisson(60, 0.6, random):
        due_s = round(random.uniform(4, 20), 4)
        talk = Talk(1, 100, 0, (16, 64), 0.0, due_s)
        agents.append(TracedAgent(at_s, conversation(talk, random), "due", 0, "due"))
    return agents


def tool_users(random: Random) -> list[TracedAgent]:
    """80 agents whose tools take 3 s on average between calls."""
    talk = Talk(6, 150, 80, (16, 40), 3.0)
    return [
        TracedAgent(at_s, conversation(talk, random), f"u{i % 8}")
        for i, at_s in enumerate(poisson(80, 1.0, random))
    ]


def tool_gaps(random: Random) -> list[TracedAgent]:
    """40 agents with long contexts; the tools of half of them take half a second, those of the others 20 s, give or take a third."""
    agents = []
    for i, at_s in enumerate(poisson(40, 0.12, random)):
        kind, gap_s = (("quick", 0.5), ("slow", 20.0))[i % 2]
        calls = conversation(Talk(8, 1500, 80, (16, 40)), random)
        told = [replace(call, gap_s=round(gap_s * random.uniform(0.67, 1.33), 4)) for call in calls]
        agents.append(TracedAgent(at_s, tuple(told), f"u{i % 4}", 0, kind))
    return agents


def long_contexts(random: Random) -> list[TracedAgent]:
    """48 calls with long contexts, together far more than memory has room for."""
    talk = Talk(1, 600, 0, (60, 120), 0.0)
    return [
        TracedAgent(round(random.uniform(0, 1), 4), conversation(talk, random), f"u{i % 4}")
        for i in range(48)
    ]


def flood(random: Random) -> list[TracedAgent]:
    """One owner sends 1000 calls at once; 20 agents of others come as ever."""
    flooding = Talk(1, 80, 0, (16, 32), 0.0)
    usual = Talk(4, 120, 40, (20, 40), 1.0)
    agents = [TracedAgent(0.0, conversation(flooding, random), "flood") for _ in range(1000)]
    agents += [
        TracedAgent(at_s, conversation(usual, random), f"u{i}", 0, "usual")
        for i, at_s in enumerate(poisson(20, 0.2, random))
    ]
    return agents


def paper(n: int, seed: int = SEED) -> list[TracedAgent]:
    """`n` agents at once, as in the evaluation of AIOS: a few calls each, a tool between them."""
    random = Random(seed)  # noqa: S311 - a workload, no secret
    talk = Talk(2, 64, 24, (12, 20), 0.2)
    return [TracedAgent(0.0, conversation(talk, random), f"u{i % 10}") for i in range(n)]


def evaluation(n: int, seed: int = SEED) -> list[TracedAgent]:
    """`n` agents at once, of three kinds: tools and short steps, drafts and criticism, one long program."""
    random = Random(seed)  # noqa: S311
    react, reflexion = Talk(4, 160, 60, (20, 60), 0.5), Talk(3, 200, 40, (60, 160), 0.0)
    coder = Talk(1, 240, 0, (150, 400), 0.0)
    kinds = (("react", react), ("reflexion", reflexion), ("coder", coder))
    agents = []
    for number in range(n):
        kind, talk = kinds[number % len(kinds)]
        agents.append(TracedAgent(0.0, conversation(talk, random), f"u{number % 10}", 0, kind))
    return agents


Make = Callable[[Random], list[TracedAgent]]

WORKLOADS: Mapping[str, Make] = MappingProxyType(
    {
        "interactive": interactive_among_batch,
        "one-owner": one_owner,
        "ten-times": ten_times_the_agents,
        "heavy-tail": heavy_tail,
        "deadlines": deadlines,
        "tools": tool_users,
        "tool-gaps": tool_gaps,
        "working-set": long_contexts,
        "flood": flood,
    }
)


def make_workload(name: str, seed: int = SEED) -> list[TracedAgent]:
    """The agents of a named workload."""
    return WORKLOADS[name](Random(seed))  # noqa: S311
