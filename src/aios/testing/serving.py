"""A program that serves functions as tools, and does things of its own meanwhile, until nobody is left who could call them.

Its functions act outside as the kernel's own tools do, and note in a file what they were called for. Whatever becomes of the program and its
kernel, a function runs once for each call at most, and what it and its program asked of the kernel is there once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
import msgspec

from aios.abi.call import Answer, Call
from aios.abi.gate import Frames, Gate, Result, current_job
from aios.abi.tools import EffectName, ToolJob, ToolJobs, Traits
from aios.errors import AiosError
from aios.kernel.process_table import ProcessTable
from aios.sdk.tools import Tool
from aios.testing.agents import Agent
from aios.testing.outside import EFFECTS, TWICE, UNDO, UNDONE
from aios.testing.trades import crash_sometimes, end

A = TypeVar("A", bound=Answer)

N_ROUNDS, ROUND_S = 40, 6.0
"""It looks so often, and at such distances, whether somebody is left."""
N_OWN_ACTS = 6


class HearingGate:
    """A gate that tells a function who calls it, by the argument `who`. Implements `aios.abi.gate.Gate`."""

    def __init__(self, gate: Gate, table: ProcessTable) -> None:
        self._gate = gate
        self._table = table

    async def call(self, call: Call[A]) -> Result[A]:
        """Make a call."""
        result = await self._gate.call(call)
        if isinstance(result.value, ToolJobs):
            jobs = tuple(map(self._named, result.value.jobs))
            value = msgspec.structs.replace(result.value, jobs=jobs)
            return msgspec.structs.replace(result, value=value)
        return result

    @asynccontextmanager
    async def open_call(self, call: Call[A]) -> AsyncIterator[Frames[A]]:
        """Make a call and read its frames."""
        async with self._gate.open_call(call) as frames:
            yield frames

    def _named(self, job: ToolJob) -> ToolJob:
        arguments = msgspec.json.decode(job.arguments, type=dict[str, object])
        arguments["who"] = self._table.get(job.caller).name
        return msgspec.structs.replace(job, arguments=msgspec.json.encode(arguments).decode())


async def serve(agent: Agent, scope: anyio.CancelScope) -> None:
    """Serve until no worker is left, and do a few things meanwhile."""
    client, failed = agent.client, list[AiosError]()
    try:
        async with anyio.create_task_group() as tasks:
            serving = partial(client.tools.serve, *functions(agent, scope), max_parallel=3)
            await tasks.start(serving)
            tasks.start_soon(_act, agent, scope)
            for _ in range(N_ROUNDS):
                await _rest(agent, ROUND_S)
                rows, _ = await agent.asked("ps", client.ps)
                if rows is not None and not any(row.name[0] in "wfr" for row in rows):
                    break
            tasks.cancel_scope.cancel()
    except* AiosError as group:
        failed += [each for each in group.exceptions if isinstance(each, AiosError)]
    if failed:
        raise failed[0]
    await end(agent, "served")


async def _act(agent: Agent, scope: anyio.CancelScope) -> None:
    for number in range(N_OWN_ACTS):
        crash_sometimes(agent, scope)
        append = partial(agent.client.files.append, "log.txt", f"{number}\n")
        await agent.act("file", str(number), append)
        await _rest(agent, 1.0)


async def _rest(agent: Agent, seconds: float) -> None:
    now, _ = await agent.asked("now", agent.client.repeatable.now)
    if now is not None:
        await agent.told("sleep", partial(agent.client.timers.sleep_until, now + seconds))


def functions(agent: Agent, scope: anyio.CancelScope) -> list[Tool[..., Awaitable[str]]]:
    """What it serves: the same as the kernel's own tools that act outside."""
    hands = agent.world.hands()

    async def do(effect: EffectName, what: str, key: str, who: str) -> str:
        if agent.world.strikes(agent.world.faults.function_share, "function crash"):
            agent.world.doom(scope)
        await _note(agent, who, what)
        return await hands.act(who, what, effect=effect, key=key)

    def plainly(effect: EffectName) -> Callable[..., Awaitable[str]]:
        async def plain(what: str, who: str = "") -> str:
            return await do(effect, what, "", who)

        return plain

    async def keyed(what: str, key: str = "", who: str = "") -> str:
        return await do("compensable", what, key, who)

    async def undo(what: str, key: str = "", who: str = "") -> str:
        await _note(agent, who, what)
        return await hands.undo(key)

    undoable = Traits(effect="compensable", undo=UNDO, key="key")
    twice = Traits(effect="reversible", is_idempotent=True, key="key")
    undoing = Traits(effect="compensable", key="key")
    return [
        *(Tool(plainly(e), name=e, description=e, traits=Traits(effect=e)) for e in EFFECTS),
        Tool(keyed, name=UNDONE, description="Can be undone.", traits=undoable),
        Tool(keyed, name=TWICE, description="Twice is once.", traits=twice),
        Tool(undo, name=UNDO, description="Undo it.", traits=undoing),
    ]


async def _note(agent: Agent, who: str, what: str) -> None:
    """Write down what a call is for, in a file of its own."""
    job, world = current_job.get(), agent.world
    if not agent.life.is_over:
        if job in world.served:
            agent.broken(f"its function runs again for call {job}")
        world.served.add(job)
    line = f"{who} {what}"
    append = partial(agent.client.files.append, f"served-{job}.txt", f"{line}\n")
    await agent.act(f"served {job}", line, append)
