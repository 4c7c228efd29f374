"""What the programs and clients of a simulation do. A program does the same whenever it runs: it is replayed.

A worker (`w`) does a number of things of many kinds, which its seed draws; a brancher (`b`) tries two ways and keeps one; a
timed one (`t`) notes that it ran; an endless one (`e`) is always started again, and what it has started ends each time. A client (a guest) may be cut off at any step, and tries what it may not.
"""

import random
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import anyio

from aios.abi.branches import Branched
from aios.abi.recovery import Restart
from aios.abi.types import Pid
from aios.errors import AccessDenied, AiosError, KernelStopping, OutcomeUnknown, ProcessGone
from aios.testing.agents import Agent
from aios.testing.outside import EFFECTS, LOOK, TWICE, UNDONE
from aios.testing.talk import Talk

EXIT_RETRY_S = 30.0
WORKER_STEPS, ACTS_A_STEP = 3, 3
GUEST_STEPS = 4
SERVER, SERVED_SHARE = "s0", 0.7
"""The program that serves functions, where there is one, and how many acts of tools are theirs then."""
ENDLESS = "e0"
ALWAYS = Restart("always", max_restarts=50, delay_s=1.0)
"""The program that never ends by itself, in the seeds that have one."""
SLEEP_S = 5.0
"""The longest that a worker sleeps at once."""
MAX_LOOKS = 20
"""An agent that is told so often that nobody knows gives up."""

KINDS: Mapping[str, int] = MappingProxyType({
    "file": 5, "notes": 3, "mail": 4, "append": 2, "talk": 3, "fork": 1, "keep": 1, "sleep": 1,
    **dict.fromkeys((*EFFECTS, UNDONE, TWICE, "tool file"), 2),
})  # fmt: skip
"""What a worker may do next, by weight."""


def plan_of(seed: int, me: str) -> list[list[str]]:
    """What a worker does in each of its steps."""
    draw = random.Random(f"plan {seed} {me}")  # noqa: S311 - repeatable on purpose
    kinds, weights = list(KINDS), list(KINDS.values())
    return [draw.choices(kinds, weights, k=ACTS_A_STEP) for _ in range(WORKER_STEPS)]


async def work(agent: Agent, scope: anyio.CancelScope) -> None:
    """Speak and act by the plan, and end with what it was told of each."""
    client, me, world, results = agent.client, agent.me, agent.world, list[str]()
    talk = Talk(agent)
    for step, kinds in enumerate(plan_of(world.seed, me)):
        crash_sometimes(agent, scope)
        said = await agent.told("chat", partial(client.chat, f"{step} {me}", max_tokens=4))
        results.append(f"{step}:{int(said)}")
        for number, kind in enumerate(kinds):
            is_well = await _do(agent, talk, kind, f"{step}.{number}:{int(said)}")
            results.append(str(int(is_well)))
    await end(agent, " ".join(results))


async def _do(agent: Agent, talk: Talk, kind: str, stamp: str) -> bool:
    """One act. Returns: whether it went well."""
    client = agent.client
    match kind:
        case "file":
            return await agent.act(
                "file", stamp, partial(client.files.append, "log.txt", f"{stamp}\n")
            )
        case "notes":
            return await agent.act("notes", stamp, partial(client.memory.remember, stamp))
        case "mail":
            return await agent.act("mail", stamp, partial(client.mail.send, 1, stamp))
        case "append":
            return await talk.append(stamp)
        case "talk":
            return await talk.chat(stamp)
        case "fork":
            return await talk.fork(stamp)
        case "keep":
            return await talk.keep()
        case "sleep":
            return await _sleep(agent, stamp)
        case "tool file":
            given = {"action": "append", "path": "tool-file.txt", "text": f"{stamp}\n"}
            return await agent.act(kind, stamp, partial(client.tools.run, "files", given))
        case _:
            return await agent.act(
                "tool", stamp, partial(use, agent, _tool(agent, kind, stamp), stamp)
            )


def _tool(agent: Agent, kind: str, stamp: str) -> str:
    """The kernel's own tool of a kind, or that of the program which serves one."""
    is_served = random.Random(f"served {stamp}").random() < SERVED_SHARE  # noqa: S311 - repeatable on purpose
    return f"{SERVER}/{kind}" if agent.world.has_server and is_served else kind


async def use(agent: Agent, tool: str, what: str) -> None:
    """Run a tool; one of which nobody knows whether it ran is run again only if it did not."""
    tools, arguments = agent.client.tools, {"what": what}
    for _ in range(MAX_LOOKS):
        try:
            await tools.run(tool, arguments)
        except OutcomeUnknown:
            if (await tools.run(LOOK, arguments)).text == "yes":
                return
        else:
            return


async def _sleep(agent: Agent, stamp: str) -> bool:
    """Sleep until a moment; nobody wakes before it."""
    now, _ = await agent.asked("now", agent.client.repeatable.now)
    if now is None:
        return False
    until = now + random.Random(stamp).uniform(0, SLEEP_S)  # noqa: S311 - repeatable on purpose
    woken, is_well = await agent.asked("sleep", partial(agent.client.timers.sleep_until, until))
    if woken is not None and woken < until:
        agent.broken(f"woken {until - woken:g} s too early")
    return is_well


async def branch_out(agent: Agent, scope: anyio.CancelScope) -> None:
    """Try two ways; the first that is committed is kept, and the other leaves nothing."""
    client = agent.client
    await agent.act("file", "begun", partial(client.files.append, "log.txt", "begun\n"))
    crash_sometimes(agent, scope)
    fork, _ = await agent.asked("branch", partial(client.branches.start, 2))
    if fork is None:
        await end(agent, "none")
    elif fork.index:
        await _try_way(agent, fork.index, scope)
    else:
        await end(agent, await _join(agent, fork))


async def _try_way(agent: Agent, index: int, scope: anyio.CancelScope) -> None:
    client = agent.client
    crash_sometimes(agent, scope)
    write = partial(client.files.append, f"way-{index}.txt", f"{index}\n")
    is_written = await agent.told("way", write)
    await agent.act("tool", f"way {index}", partial(use, agent, "reversible", f"way {index}"))
    commit = partial(client.branches.commit, f"{index}:{int(is_written)}")
    while not await agent.told("commit", commit):  # noqa: ASYNC110 - nothing tells when a disk takes writes again
        await anyio.sleep(EXIT_RETRY_S)


async def _join(agent: Agent, fork: Branched) -> str:
    """What came of the branches: the word of the winner, and the files that are there then."""
    client = agent.client
    while True:
        end, _ = await agent.asked("join", partial(client.branches.join, fork.group))
        if end is None:
            await anyio.sleep(EXIT_RETRY_S)
            continue
        if end.winner is None:
            await agent.told("discard", partial(client.branches.discard, fork.group))
        found, _ = await agent.asked("list", partial(client.files.list, "."))
        if found is not None:
            names = sorted(each.path.rpartition("/")[2] for each in found)
            return f"{end.result}|{' '.join(names)}"


async def run_once(agent: Agent, scope: anyio.CancelScope) -> None:
    """Note that a timer started this process."""
    crash_sometimes(agent, scope)
    own, _ = await agent.asked("getpid", agent.client.getpid)
    if own is not None:
        append = partial(agent.client.files.append, f"run-{own.pid}.txt", f"{own.pid}\n")
        await agent.act(f"run {own.pid}", str(own.pid), append)
    await end(agent, "ran")


async def run_on(agent: Agent, scope: anyio.CancelScope) -> None:
    """Exit, to be started again; the first of them starts another in each life."""
    crash_sometimes(agent, scope)
    if agent.me == ENDLESS:
        spawn = partial(agent.client.spawn, agent.world.program, "e1", name="e1", restart=ALWAYS)
        await agent.told("spawn", spawn)
    await agent.told("chat", partial(agent.client.chat, "again", max_tokens=4))
    await end(agent, "on")


async def visit(agent: Agent, other: Pid) -> None:
    """A client: what it asks for may be cut off at any step, and what it may not do stays undone."""
    client, world = agent.client, agent.world
    for step in range(GUEST_STEPS):
        stamp = f"{agent.life.number}.{step}"
        effect = EFFECTS[step % len(EFFECTS)]
        for thing, act in (
            ("file", partial(client.files.append, f"/agents/{agent.name}/log.txt", f"{stamp}\n")),
            ("tool", partial(client.tools.run, effect, {"what": stamp})),
            ("chat", partial(client.chat, "hello", max_tokens=6)),
        ):
            with anyio.CancelScope() as scope:
                if world.strikes(world.faults.cut_share, "client gone"):
                    world.doom(scope)
                if thing == "chat":
                    await agent.told(thing, act)
                else:
                    await agent.act(thing, stamp, act)
        await _try_what_is_denied(agent, other)


async def _try_what_is_denied(agent: Agent, other: Pid) -> None:
    try:
        await agent.client.kill(other)
    except AccessDenied:
        return
    except AiosError as error:
        if isinstance(error, (ProcessGone, KernelStopping)):
            raise
        return
    agent.broken(f"killed process {other}, which is not its own")


def crash_sometimes(agent: Agent, scope: anyio.CancelScope) -> None:
    """Let the program crash within the next steps, in a part of the runs."""
    if agent.world.strikes(agent.world.faults.program_share, "program crash"):
        agent.world.doom(scope)


async def end(agent: Agent, result: str) -> None:
    """End, however often that must be asked for."""
    is_over = False
    while not is_over:
        is_over = await agent.told("exit", partial(agent.client.exit, 0, result))
        await anyio.sleep(EXIT_RETRY_S)
