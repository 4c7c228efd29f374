"""What the owner does in a simulation: forks workers, puts them away and brings them back, branches them, sets timers, kills, decides.

An errand looks first for what an earlier life, or an earlier try, has done of it: the owner is not replayed.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType

import anyio

from aios.abi.branches import BranchGroup
from aios.abi.fork import Fork
from aios.abi.recovery import AnswerQuestion, Choice, Questions, Restart
from aios.abi.spawn import Spawn
from aios.abi.timers import TimerInfo
from aios.abi.types import Pid, ProcessInfo, State
from aios.testing.agents import Agent
from aios.testing.limited import LIMITED_DIGITS, NOT_STARTED
from aios.testing.trades import ALWAYS, ENDLESS

RETRY_S = 20.0
PAUSE_S = 15.0
"""The longest before an errand."""
IMPOSSIBLE = frozenset({"not_found", "conflict"})
"""What is answered where an errand comes too late: the journal of who has ended is gone, say."""
ALLOWED_SHARE, AGAIN_SHARE = 0.8, 0.7
"""Of acts that are asked about, and of acts that did not happen before a crash, those that are allowed, or made again."""
EVERY_MINUTE, N_RUNS = "* * * * *", 2

Errand = Callable[[Agent], Awaitable[bool]]
"""Does what is left of an errand. Returns: whether it is done, or can be done no more."""


async def run_errands(agent: Agent) -> None:
    """Do those of the seed that are left."""
    world = agent.world
    while world.errands:
        await anyio.sleep(world.draw.uniform(0, PAUSE_S))
        while not await ERRANDS[world.errands[0]](agent):  # noqa: ASYNC110 - the owner asks as people do
            await anyio.sleep(RETRY_S)
        if agent.life.is_over:
            return
        world.errands.pop(0)


async def decide(agent: Agent) -> None:
    """Answer what is asked: of acts that need a human, and after a crash by a look at what happened; until cancelled."""
    stayed: set[Pid] = set()
    while True:
        await anyio.sleep(RETRY_S)
        await _approve(agent)
        if agent.world.seed % 10 in LIMITED_DIGITS:
            stayed = await _let_go_on(agent, stayed)
        if agent.life.number:
            await _settle_doubts(agent)


async def _approve(agent: Agent) -> None:
    approvals, draw = agent.client.approvals, agent.world.draw
    asked, _ = await agent.asked("approvals", approvals.list)
    for each in asked or ():
        answer = "once" if draw.random() < ALLOWED_SHARE else "deny"
        await agent.told("approve", partial(approvals.answer, each.id, answer))


async def _let_go_on(agent: Agent, before: set[Pid]) -> set[Pid]:
    """Who has stayed stopped since the last look has nobody who is asked: the disk failed when it would have been. Returns: who is stopped."""
    rows = (await _rows(agent)).values()
    stopped = {row.pid for row in rows if row.name == "l0" and row.state is State.STOPPED}
    for pid in stopped & before:
        await agent.told("cont", partial(agent.client.cont, pid))
    return stopped


async def _settle_doubts(agent: Agent) -> None:
    gate, world = agent.client.gate, agent.world
    found, _ = await agent.asked("questions", partial(gate.call, Questions()))
    for question in found.value.questions if found is not None else ():
        is_done = world.outside.is_last_done(question.name)
        choice: Choice = "again"
        if is_done or world.draw.random() >= AGAIN_SHARE:
            choice = "done"
        answer = AnswerQuestion(pid=question.pid, choice=choice)
        await agent.told("decide", partial(gate.call, answer))


async def _fork(agent: Agent) -> bool:
    rows = await _rows(agent)
    if not rows or "f0" in rows:
        return bool(rows)
    return await _try(
        agent, "fork", partial(agent.client.gate.call, Fork(pid=rows["w0"].pid, name="f0"))
    )


async def _put_away(agent: Agent) -> bool:
    checkpoints, rows = agent.client.checkpoints, await _rows(agent)
    found, _ = await agent.asked("checkpoints", checkpoints.list_all)
    if not rows or found is None or found:
        return bool(found)
    return await _try(agent, "checkpoint", partial(checkpoints.save, rows["w0"].pid, name="c0"))


async def _bring_back(agent: Agent) -> bool:
    rows = await _rows(agent)
    if not rows or "r0" in rows:
        return bool(rows)
    restore = partial(agent.client.checkpoints.restore, "c0", name="r0")
    return await _try(agent, "restore", restore)


async def _throw_away(agent: Agent) -> bool:
    return await _try(agent, "remove", partial(agent.client.checkpoints.remove, "c0"))


async def _branch(agent: Agent) -> bool:
    branches, rows = agent.client.branches, await _rows(agent)
    groups = await _groups(agent)
    if not rows or groups is None or groups:
        return bool(groups)
    return await _try(agent, "branch", partial(branches.start, 2, pid=rows["w1"].pid))


async def _discard(agent: Agent) -> bool:
    groups = await _groups(agent)
    if groups is None:
        return False
    discard = agent.client.branches.discard
    done = [
        await _try(agent, "discard", partial(discard, each.group))
        for each in groups
        if each.state == "open"
    ]
    return all(done)


async def _set_timer(agent: Agent, *, cron: str) -> bool:
    world, timers = agent.world, agent.client.timers
    rows, found = await _rows(agent), await _timers(agent)
    if not rows or found is None or found or "t0" in rows:
        return bool(rows) and (bool(found) or "t0" in rows)
    restart = Restart(policy="on-failure", max_restarts=50)
    spawn = Spawn(program=str(world.program), args=("t0",), name="t0", restart=restart)
    at = None if cron else world.clock.unix_s() + world.draw.uniform(1, PAUSE_S)
    return await _try(agent, "timer", partial(timers.add, spawn, at_unix_s=at, cron=cron))


async def _end_timer(agent: Agent, *, is_once: bool) -> bool:
    """Wait for the runs; then it has started as many processes as it says, and no other has."""
    rows, _found = await agent.asked("ps", partial(agent.client.ps, include_ended=True))
    timers = await _timers(agent)
    if rows is None or timers is None:
        return False
    n_runs = _n_runs(rows)
    is_exact = not agent.world.injected["disk error"]  # else some may not have come to their start
    if not timers:
        # a line of cron was removed, and its kernel cut off before it could say so
        n_least, n_most = (1, 1) if is_once else (N_RUNS, n_runs)
        if n_runs > n_most or (is_exact and n_runs < n_least):
            agent.broken(f"a timer that is gone made {n_runs} runs")
        return True
    (timer,) = timers
    is_to_run = timer.next_unix_s is not None  # a single run that failed stays, and is removed
    if is_to_run and (not timer.cron or timer.n_runs < N_RUNS):
        return False
    removed, _ = await agent.asked("remove", partial(agent.client.timers.remove, timer.id))
    rows, _ = await agent.asked("ps", partial(agent.client.ps, include_ended=True))
    if removed is not None and rows is not None:
        n_runs = _n_runs(rows)
        if n_runs > removed.n_runs or (is_exact and n_runs < removed.n_runs):
            agent.broken(f"a timer made {removed.n_runs} runs, and there are {n_runs}")
    return removed is not None


async def _begin_endless(agent: Agent) -> bool:
    rows, client = await _rows(agent), agent.client
    if not rows or ENDLESS in rows:
        return bool(rows)
    program = agent.world.program
    return await _try(
        agent, "spawn", partial(client.spawn, program, ENDLESS, name=ENDLESS, restart=ALWAYS)
    )


async def _end_endless(agent: Agent) -> bool:
    """Kill it with all below it, and look, a while later, whether it has ended: a crash may come between kill and disk."""
    rows = await _rows(agent)
    if rows and ENDLESS in rows and rows[ENDLESS].state is not State.EXITED:
        await agent.told("kill", partial(agent.client.kill, rows[ENDLESS].pid))
        if agent.code == "conflict" and not agent.world.injected["disk error"]:
            agent.broken(f"{ENDLESS}, which starts again whenever it exits, was said to have ended")
        return False
    return bool(rows)


def _n_runs(rows: tuple[ProcessInfo, ...]) -> int:
    """Runs of the timer that came to their start."""
    found = [row.exit for row in rows if row.name == "t0"]
    return sum(end is None or end.status != NOT_STARTED for end in found)


async def _try(agent: Agent, what: str, ask: Callable[[], Awaitable[object]]) -> bool:
    return await agent.told(what, ask) or agent.code in IMPOSSIBLE


async def _rows(agent: Agent) -> dict[str, ProcessInfo]:
    """Programs by name; nothing if that could not be asked."""
    rows, _ = await agent.asked("ps", partial(agent.client.ps, include_ended=True))
    return {row.name: row for row in rows or ()}


async def _groups(agent: Agent) -> tuple[BranchGroup, ...] | None:
    """The groups of branches that the owner has begun."""
    groups, _ = await agent.asked("branches", agent.client.branches.list_all)
    return None if groups is None else tuple(each for each in groups if each.source_name == "w1")


async def _timers(agent: Agent) -> tuple[TimerInfo, ...] | None:
    timers, _ = await agent.asked("timers", agent.client.timers.list)
    return timers


ERRANDS: Mapping[str, Errand] = MappingProxyType({
    "fork": _fork,
    "put away": _put_away,
    "bring back": _bring_back,
    "throw away": _throw_away,
    "branch": _branch,
    "discard": _discard,
    "timer": partial(_set_timer, cron=""),
    "cron": partial(_set_timer, cron=EVERY_MINUTE),
    "end timer": partial(_end_timer, is_once=True),
    "endless": _begin_endless,
    "end endless": _end_endless,
    "end cron": partial(_end_timer, is_once=False),
})  # fmt: skip
