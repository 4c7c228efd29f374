"""What a real kernel takes for each agent when many run at once, in an interpreter of its own.

Run by the `paper` bench: `python -m aios.bench.paper_agents 2000 settled` runs 10,000 agents, 2,000 at once, wave after wave,
and prints a `Cost` as JSON. Each agent is a process that makes two model calls to the scripted engine, which answers at once,
so all the time is the kernel's; processor time is taken, since others may run on the machine. What was before the first
1,000 have ended is not counted: from then on, ended processes are forgotten as new ones end.
"""

import gc
import sys
from time import perf_counter, process_time

import anyio
import msgspec
from msgspec import Struct

from aios.abi.calls import Chat
from aios.abi.types import Message, Role, Sampling
from aios.bench.children import scratch_folder
from aios.config import Config, Home, KernelConfig
from aios.engine.scripted import ScriptedEngine
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.server.collector import settle_collector

N_AGENTS = 10_000
N_CALLS = 2
SETTLED, PLAIN = "settled", "plain"
"""Python's garbage collector: as `aios serve` sets it, or as Python does."""

_CALL = Chat(
    messages=(Message(Role.USER, "Which files have changed since yesterday?"),),
    sampling=Sampling(temperature=0.0, seed=1),
    max_tokens=16,
)


class Cost(Struct, frozen=True):
    """Of an agent, from its spawn to its end.

    Args:
        agent_us: Processor time of the whole program, by agents.
        pause_ms: The longest that the garbage collector stood everything still.
    """

    agent_us: float
    pause_ms: float


class Pauses:
    """How long the garbage collector runs at a time; for `gc.callbacks`."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._begun_s = 0.0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._begun_s = perf_counter()
        else:
            self.longest_s = max(self.longest_s, perf_counter() - self._begun_s)


async def measure_cost(n_at_once: int, n_agents: int, collector: str) -> Cost:
    """Run so many agents in all, so many of them at once."""
    n_waves = -(-n_agents // n_at_once)
    limits = KernelConfig(max_processes=2 * n_at_once, max_queue=2 * n_at_once)
    engines = {"scripted": ScriptedEngine(tokens_per_read=16)}
    with scratch_folder() as folder:
        async with open_kernel(
            Config(kernel=limits), Home(folder), engines=engines, embedded=True
        ) as kernel:
            if collector == SETTLED:
                settle_collector()
            n_first = min(limits.max_exited, n_agents)
            for _ in range(-(-n_first // n_at_once)):
                await _wave(kernel, min(n_at_once, n_first))
            gc.collect()
            pauses = Pauses()
            gc.callbacks.append(pauses)
            begun_s = process_time()
            for _ in range(n_waves):
                await _wave(kernel, n_at_once)
            lasted_s = process_time() - begun_s
            gc.callbacks.remove(pauses)
    return Cost(1e6 * lasted_s / (n_waves * n_at_once), 1000 * pauses.longest_s)


async def _wave(kernel: Kernel, n: int) -> None:
    pids = [kernel.spawn_task("agent", _agent) for _ in range(n)]
    for pid in pids:
        process = kernel.table.find(pid)
        if process is not None:
            await process.wait_ended()


async def _agent(gate: LocalGate) -> str | None:
    for _ in range(N_CALLS):
        await gate.call(_CALL)
    return None


def main(args: list[str]) -> None:
    """Print what an agent costs."""
    n_at_once, n_agents, collector = args
    cost = anyio.run(
        measure_cost,
        int(n_at_once),
        int(n_agents),
        collector,
        backend_options={"use_uvloop": True},
    )
    sys.stdout.write(msgspec.json.encode(cost).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
