"""The ablation of the AIOS paper: the same agents without a scheduler and under each policy.

In virtual time (`in_virtual_time`) two kinds of having no scheduler stand beside the policies. `refused`: an endpoint takes a call
for each of its slots and refuses the others, which come back after a pause, doubled with each refusal. `memory`: what the paper
calls trial and error; the endpoint takes whatever prompt fits into its memory, and when answers have grown beyond it, calls fail,
what was computed for them is lost, and they come back after such a pause. Its memory is what the slots of the scheduled runs
could hold at most, so that nobody has more room than the others.

In a real kernel (`in_a_kernel`) the engine is the scripted one, which takes its time; the agents without a scheduler call it
directly and are refused by it.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import perf_counter

import anyio
from msgspec import Struct

from aios.abi.calls import Chat
from aios.abi.trace import TracedAgent
from aios.abi.types import Message, Role, Sampling
from aios.bench.rows import rounded
from aios.bench.sched_traces import evaluation
from aios.config import Config, Home, KernelConfig, SchedulerConfig
from aios.engine.base import ChatPrompt, Engine, Job
from aios.engine.base import Sequence as Generation
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import ResourceExhausted
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel
from aios.kernel.scheduler.engine_model import BackOff, EngineModel
from aios.kernel.scheduler.outcome import Outcome, distribution
from aios.kernel.scheduler.policies import POLICIES
from aios.kernel.scheduler.simulation import simulate

USUAL = EngineModel()
HASTY, PATIENT = BackOff(), BackOff(0.5, 60.0)
"""Pauses of 0.1 s, doubled up to 5 s; of 0.5 s, up to a minute."""
REFUSED, MEMORY = "refused", "memory"
"""Without a scheduler, in one way or the other."""
TOKEN_S = 0.001
"""What the scripted engine takes for a token of each sequence; the model of rates takes 36 times that with 8 of them."""
TIME_SCALE = TOKEN_S * 224 / 8
"""So much shorter are pauses in the real kernel."""


class Figures(Struct, frozen=True):
    """What the paper shows of a run; all in seconds.

    Args:
        makespan_s: Until the last agent is done.
        wait_mean_s: How long a call waits, on average, before an engine works for it; work that is lost counts as waiting.
        wait_p90_s: The same, of the slowest tenth.
        note: What else there is to know.
    """

    makespan_s: float
    wait_mean_s: float
    wait_p90_s: float
    note: str = ""


def in_virtual_time(
    agents: Sequence[TracedAgent],
    name: str,
    *,
    engine: EngineModel = USUAL,
    back_off: BackOff = HASTY,
    memory_share: float = 1.0,
) -> Figures:
    """Simulate the agents under a policy, or without a scheduler (`refused`, `memory`).

    Args:
        agents: Who they are.
        name: Of a policy, with its default knobs, or a way to have none.
        engine: How fast it is.
        back_off: The pauses of who was refused or failed.
        memory_share: The memory without a scheduler, as a part of what the slots could hold at most.
    """
    if name in (REFUSED, MEMORY):
        n_tokens = int(memory_share * engine.n_slots * largest_context(agents))
        memory_tokens = n_tokens if name == MEMORY else None
        found = simulate(agents, None, engine, back_off=back_off, memory_tokens=memory_tokens)
    else:
        found = simulate(agents, POLICIES[name](SchedulerConfig(policy=name)), engine)
    return _figures(found)


def largest_context(agents: Sequence[TracedAgent]) -> int:
    """Tokens of prompt and answer of the largest call."""
    return max(call.prompt_tokens + call.output_tokens for agent in agents for call in agent.calls)


def _figures(found: Outcome) -> Figures:
    waited_s = found.waited_s()
    notes = [f"{found.n_preemptions} preemptions"]
    if found.n_refusals:
        notes = [f"{found.n_refusals} refusals, {found.n_lost_tokens} tokens computed in vain"]
    return Figures(found.makespan_s, waited_s.mean, waited_s.p90, notes[0])


# --- a real kernel -----------------------------------------------------------------------------------------------


async def in_a_kernel(agents: Sequence[TracedAgent], name: str, folder: Path) -> Figures:
    """Run the agents for real under a policy, or on the bare engine (`refused`); the scripted engine computes no prompts."""
    script = Script(answer_tokens=1 << 20, token_delay_s=TOKEN_S)
    engine = ScriptedEngine(script=script)
    waits: list[float] = []
    if name == REFUSED:
        begun_s = perf_counter()
        async with anyio.create_task_group() as tasks:
            for number, agent in enumerate(agents):
                tasks.start_soon(_refused_agent, engine, agent, number, waits)
        lasted_s = perf_counter() - begun_s
    else:
        lasted_s = await _under(name, engine, agents, folder=folder, waits=waits)
    waited_s = distribution(waits)
    return Figures(lasted_s, waited_s.mean, waited_s.p90)


async def _under(
    policy: str,
    engine: Engine,
    agents: Sequence[TracedAgent],
    *,
    folder: Path,
    waits: list[float],
) -> float:
    """Seconds until the last agent is done."""
    config = Config(
        kernel=KernelConfig(max_processes=2 * len(agents), max_exited=2 * len(agents)),
        scheduler=SchedulerConfig(policy=policy),
    )
    async with open_kernel(config, Home(folder), engines={"scripted": engine}) as kernel:
        await kernel.init_gate().call(_chat(1))
        begun_s = perf_counter()
        pids = [kernel.spawn_task("agent", _body(agent, waits)) for agent in agents]
        for pid in pids:
            await kernel.table.get(pid).wait_ended()
        return perf_counter() - begun_s


def _body(agent: TracedAgent, waits: list[float]) -> Callable[[LocalGate], Awaitable[str | None]]:
    async def run(gate: LocalGate) -> str | None:
        for call in agent.calls:
            waits.append((await gate.call(_chat(call.output_tokens))).waited_s)
            await anyio.sleep(call.gap_s * TIME_SCALE)
        return None

    return run


async def _refused_agent(
    engine: Engine, agent: TracedAgent, number: int, waits: list[float]
) -> None:
    for call in agent.calls:
        chat = _chat(call.output_tokens)
        job = Job(ChatPrompt(chat.messages), chat.sampling, call.output_tokens)
        asked_s = perf_counter()
        sequence = await _open_at_last(engine, job, number)
        waits.append(perf_counter() - asked_s)
        while (await sequence.read()).finish is None:
            pass
        await sequence.close()
        await anyio.sleep(call.gap_s * TIME_SCALE)


async def _open_at_last(engine: Engine, job: Job, number: int) -> Generation:
    n_refusals = 0
    while True:
        try:
            return await engine.open(job)
        except ResourceExhausted:
            n_refusals += 1
            await anyio.sleep(HASTY.delay_s(number, n_refusals) * TIME_SCALE)


def _chat(n_tokens: int) -> Chat:
    return Chat(
        messages=(Message(Role.USER, "Which files have changed since yesterday?"),),
        sampling=Sampling(temperature=0.0, seed=1),
        max_tokens=n_tokens,
    )


# --- how much of it is the assumptions ---------------------------------------------------------------------------


def table(n_agents: int = 250) -> str:
    """What having no scheduler costs under other assumptions, as a Markdown table; takes a minute."""
    agents, single = evaluation(n_agents), EngineModel(n_slots=1)
    base, single_base = (
        in_virtual_time(agents, "fifo"),
        in_virtual_time(agents, "fifo", engine=single),
    )
    lines = [
        "| without a scheduler | overall, s | against fifo | wait, s | p90, s | |",
        "|---|---|---|---|---|---|",
    ]
    for about, found, fifo in (
        ("refused, pauses of 0.1 s doubled up to 5 s", in_virtual_time(agents, REFUSED), base),
        ("refused, 0.5 s up to 60 s", in_virtual_time(agents, REFUSED, back_off=PATIENT), base),
        ("memory, 0.1 s up to 5 s", in_virtual_time(agents, MEMORY), base),
        ("memory, 0.5 s up to 60 s", in_virtual_time(agents, MEMORY, back_off=PATIENT), base),
        ("half the memory, 0.1 s up to 5 s", in_virtual_time(agents, MEMORY, memory_share=0.5), base),
        ("twice the memory, 0.1 s up to 5 s", in_virtual_time(agents, MEMORY, memory_share=2.0), base),
        ("four times the memory, 0.1 s up to 5 s", in_virtual_time(agents, MEMORY, memory_share=4.0), base),
        ("one slot, refused, 0.1 s up to 5 s", in_virtual_time(agents, REFUSED, engine=single), single_base),
        ("one slot, memory, 0.1 s up to 5 s", in_virtual_time(agents, MEMORY, engine=single), single_base),
    ):  # fmt: skip
        times = found.makespan_s / fifo.makespan_s
        figures = (found.makespan_s, times, found.wait_mean_s, found.wait_p90_s)
        lines.append(
            f"| {about} | {' | '.join(f'{rounded(each):g}' for each in figures)} | {found.note} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
