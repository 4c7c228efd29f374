"""A program with a budget: it makes calls side by side, lets old turns leave a context, and spends until it may not."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from aios.abi.budget import Limits, Spent
from aios.errors import KernelStopping, ProcessGone
from aios.kernel.kernel import Kernel
from aios.kernel.process import Process
from aios.sdk.contexts import Context
from aios.testing.agents import Agent
from aios.testing.outside import EFFECTS
from aios.testing.trades import crash_sometimes, end, use
from aios.testing.world import World

LIMITED_DIGITS = (3, 4)
"""Seeds that end so have a program with a budget as well. No older seed of a bug does: each still means the run that found it."""
LIMITS = Limits(tool_calls=5, calls=7, completion_tokens=60)
"""Less than it asks for; the owner may give more, which moves them."""
NOT_STARTED = 126
"""The status of a process whose program could not be started."""
N_ROUNDS, N_LANES, ACTS_A_LANE, N_TURNS, N_MORE = 2, 2, 2, 3, 4
SMALL_TOKENS = 14
"""Of a context after its compaction: less than the turns take."""


async def work_within_limits(agent: Agent, scope: anyio.CancelScope) -> None:
    """Do more than it may, partly side by side, and end."""
    for number in range(N_ROUNDS):
        crash_sometimes(agent, scope)
        await _side_by_side(
            [
                *(partial(_fill, agent, f"lane {lane}", number) for lane in range(N_LANES)),
                partial(_act, agent, f"round {number}", EFFECTS[number]),
                partial(agent.told, "chat", partial(agent.client.chat, "hello", max_tokens=4)),
            ]
        )
    crash_sometimes(agent, scope)
    await _slim(agent)
    for number in range(N_MORE):
        await _act(agent, f"more {number}", EFFECTS[number % len(EFFECTS)])
    await end(agent, "spent")


async def _side_by_side(lanes: list[Callable[[], Awaitable[object]]]) -> None:
    """Go along all lanes at once; one whose process has gone ends with the others."""
    gone: list[ProcessGone | KernelStopping] = []

    async def go(lane: Callable[[], Awaitable[object]]) -> None:
        try:
            await lane()
        except (ProcessGone, KernelStopping) as error:
            gone.append(error)

    async with anyio.create_task_group() as tasks:
        for lane in lanes:
            tasks.start_soon(go, lane)
    if gone:
        raise gone[0]


async def _fill(agent: Agent, thing: str, number: int) -> None:
    path = f"{thing.replace(' ', '-')}.txt"
    for act in range(ACTS_A_LANE):
        stamp = f"{number}.{act}"
        await agent.act(thing, stamp, partial(agent.client.files.append, path, f"{stamp}\n"))


async def _act(agent: Agent, stamp: str, tool: str) -> None:
    await agent.act("tool", stamp, partial(use, agent, tool, stamp))


async def _slim(agent: Agent) -> None:
    """Let old turns leave a context, and bring them back."""
    opening = partial(agent.client.contexts.open, window="drop-oldest")
    context, _ = await agent.asked("open", opening)
    if context is None:
        return
    texts = ["what stays"]
    if not await agent.told("append", partial(context.append, texts[0], is_pinned=True)):
        return
    for turn in range(N_TURNS):
        chat = partial(context.chat, f"turn {turn}", max_tokens=4)
        reply, _ = await agent.asked("talk", chat)
        if reply is not None:
            texts += [f"turn {turn}", reply.text]
    shorter = partial(context.compact, target_tokens=SMALL_TOKENS)
    compacted, _ = await agent.asked("compact", shorter)
    n_gone = compacted.compaction.n_messages if compacted is not None else 0
    await _is_what_stayed(agent, context, texts, n_gone)
    if n_gone and await agent.told("undo", context.undo):
        n_gone = 0
    await _is_what_stayed(agent, context, texts, n_gone)
    await agent.told("close", context.close)


async def _is_what_stayed(agent: Agent, context: Context, texts: list[str], n_gone: int) -> None:
    """So many have left, in order; what is pinned stays, and so does the end."""
    messages, _ = await agent.asked("messages", context.messages)
    if messages is None:
        return
    found, rest = [message.text() for message in messages], iter(texts)
    is_part = all(any(text == each for each in rest) for text in found)
    is_right = is_part and found[0] == texts[0] and found[-1] == texts[-1]
    if not is_right or len(found) != len(texts) - n_gone:
        agent.broken(f"{n_gone} messages of {texts} left, and {found} stayed")


def check_spent(world: World, kernel: Kernel, process: Process) -> None:
    """Nothing was spent beyond a limit, and no act was acknowledged for nothing.

    A crash takes what a call had spent with its outcome; made again it is charged again. Who could not be started again made none.
    """
    info, broken = kernel.budgets.info(process.pid), world.ledger.broken
    for good in Spent.__struct_fields__:
        limit, spent = getattr(info.limits, good), getattr(info.spent, good)
        if limit is not None and spent > limit:
            broken(f"{process.name} spent {spent} {good}, and might spend {limit}")
    account = world.ledger.accounts.get((process.name, "tool"))
    if process.exit is not None and process.exit.status == NOT_STARTED:
        return
    if account is not None and len(account.done) > info.spent.tool_calls:
        broken(f"{process.name} did {sorted(account.done)}, and spent {info.spent.tool_calls}")
