"""Which agent a process is: one in the lineage of those that started it. Its files and its private memory are kept by that.

What the owner starts under a name is the agent of that name, today as tomorrow. A child is an agent of those above it, so a program that
names a child like another agent gets no look at what is that one's, and the same team that is started again finds what is its own.

The key of an agent is the names of its lineage, joined by `+`, which no name holds; in its folder `+` and `/` change places:

    lineage         key        folder
    ann             ann        /agents/ann
    ann, kid        ann+kid    /agents/ann/kid
    ann/kid         ann/kid    /agents/ann+kid
"""

from collections.abc import Iterable

AGENTS = "agents"
"""The folder that holds those of all agents."""
SEPARATOR = "+"

_CHANGED = str.maketrans("+/", "/+")


def agent_of(lineage: Iterable[str]) -> str:
    """The key of the agent with these names, from the child of init down to its own; empty for init."""
    return SEPARATOR.join(lineage)


def path_of(agent: str) -> str:
    """The path of an agent's folder below `/agents`, which is how people are told of it."""
    return agent.translate(_CHANGED)


def home_of(lineage: Iterable[str]) -> str:
    """The folder of an agent; that of init is `/`. No two lineages have the same."""
    agent = agent_of(lineage)
    return f"/{AGENTS}/{path_of(agent)}" if agent else "/"


def agent_at(home: str) -> str:
    """The key of the agent whose folder that is."""
    return home.removeprefix(f"/{AGENTS}/").translate(_CHANGED)


def sibling(agent: str, name: str) -> str:
    """The key of the agent of that name that was started by the same as another."""
    above, plus, _ = agent.rpartition(SEPARATOR)
    return f"{above}{plus}{name}"
