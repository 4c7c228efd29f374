"""The rows of `journal` about forks: what a branch takes, and what a model computes for eight of them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from aios.abi.types import Pid, Usage
from aios.bench.bench import Settings
from aios.bench.rows import Bar, Report, Series, Spec
from aios.config import Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded, load
from aios.engine.base import Engine
from aios.engine.models import find_model
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel.kernel import Kernel
from aios.sdk.client import Client
from aios.server.daemon import open_server

N_FILES, N_WORDS = 100, 1_000
N_BRANCHES, N_FORKS, N_COMMITS = 8, 20, 3
MAX_TOKENS = 24
LOOK_S = 0.01
SOURCE = f"""\
from aios.sdk.blocking import connect
with connect() as client:
    context = client.contexts.open(system="sea " * {N_WORDS})
    context.chat("Begin.", max_tokens=8)
    for number in range({N_FILES}):
        client.files.write(f"{{number}}.txt", b"a file of its own " * 10)
    client.mail.send(1, "ready")
    context.chat(client.mail.receive().body, max_tokens={MAX_TOKENS})
    client.exit(0, str(context.id))
"""

SPECS = (
    Spec("journal", "fork", "ms", Bar(20.0), f"until a branch with {N_WORDS} tokens and {N_FILES} files is on disk; scripted engine"),
    Spec("journal", "commit", "ms", None, f"until one of {N_BRANCHES} branches is merged and the others are gone; scripted engine"),
    Spec("journal", "branches", "tokens", Bar(1.5, on_ratio=True), f"computed for {N_BRANCHES} branches from one point; beside it those that are new"),
)  # fmt: skip


async def measure_forks(settings: Settings, report: Report, folder: Path) -> None:
    """How long a fork takes, without a model, and how much is computed for branches with one."""
    settings.say(f"forks of an agent with {N_WORDS} tokens and {N_FILES} files")
    window = {"local": ScriptedEngine(window_tokens=1 << 16)}
    async with _serving(folder / "forks", "", window) as (kernel, client):
        source = await _ready(client, folder / "forks")
        took = Series(tuple([await _fork_ms(kernel, client, source, n) for n in range(N_FORKS)]))
        commits = Series(
            tuple([await _commit_ms(kernel, client, source) for _ in range(N_COMMITS)])
        )
    report.add("fork", took.median, spread=took.spread)
    report.add("commit", commits.median, spread=commits.spread)
    try:
        model = find_model("", load().home)
    except AiosError as error:
        report.miss("branches", error.message)
        return
    settings.say(f"{N_BRANCHES} branches with a model")
    async with _serving(folder / "branches", str(model), None) as (_, client):
        computed, new = await _branch_work(client, folder / "branches")
    report.add("branches", computed, baseline=new)


@asynccontextmanager
async def _serving(
    home: Path, model: str, engines: Mapping[str, Engine] | None
) -> AsyncIterator[tuple[Kernel, Client]]:
    config = Config(engine=EngineConfig(model=model), server=ServerConfig(port=0))
    loaded = Loaded(config, Home(home), home / "config.toml")
    async with open_server(loaded, http=False, engines=engines, is_durable=True) as kernel:
        yield kernel, Client(kernel.init_gate())


async def _ready(client: Client, folder: Path) -> Pid:
    """The agent that is forked, waiting for its order."""
    program = folder / "agent"
    program.mkdir()
    (program / "agent.toml").write_text('name = "agent"\n')
    (program / "main.py").write_text(SOURCE)
    source = (await client.spawn(program)).pid
    await client.mail.receive()
    return source


async def _fork_ms(kernel: Kernel, client: Client, source: Pid, number: int) -> float:
    """One fork, under a name of its own: a folder that others had before would hold the files already."""
    begun_s = kernel.clock.now_s()
    branch = await client.journal.fork(source, name=f"branch-{number}")
    took_s = kernel.clock.now_s() - begun_s
    await client.kill(branch.pid)
    return 1000 * took_s


async def _commit_ms(kernel: Kernel, client: Client, source: Pid) -> float:
    """One commit of a branch that changed every tenth file, among branches that wait."""
    fork = await client.branches.start(N_BRANCHES, pid=source)
    for each in fork.branches:
        await _waiting(kernel, each.pid)
    winner = fork.branches[-1].pid
    mine = Client(kernel.gate(winner))
    for number in range(0, N_FILES, 10):
        await mine.files.write(f"{number}.txt", f"by {winner}".encode())
    begun_s = kernel.clock.now_s()
    await client.branches.commit(pid=winner)
    return 1000 * (kernel.clock.now_s() - begun_s)


async def _waiting(kernel: Kernel, pid: Pid) -> None:
    """Return when a branch is live and waits for its order."""
    process = kernel.table.get(pid)
    while not any(run.name == "receive" and run.is_parked for run in process.runs.values()):  # noqa: ASYNC110 - nothing tells that a call is parked
        await anyio.sleep(LOOK_S)


async def _branch_work(client: Client, folder: Path) -> tuple[int, int]:
    """The tokens that were computed for branches with an order each, and those that are new in them."""
    source = await _ready(client, folder)
    n_common = next(
        each for each in await client.contexts.list_all() if each.pid == source
    ).n_tokens
    fork = await client.branches.start(N_BRANCHES, pid=source)
    pids = [each.pid for each in fork.branches]
    for number, pid in enumerate(pids):
        await client.mail.send(pid, f"Tell me about the sea number {number}, and why you like it.")
    for pid in pids:
        await client.wait(pid)
    usages = [await _last_usage(client, pid) for pid in pids]
    computed = sum(u.prompt_tokens - u.cached_tokens + u.completion_tokens for u in usages)
    return computed, sum(u.prompt_tokens - n_common + u.completion_tokens for u in usages)


async def _last_usage(client: Client, pid: Pid) -> Usage:
    usage = next(each.usage for each in await client.ps(include_ended=True) if each.pid == pid)
    assert usage.completion_tokens, "the branch's own chat is the only one that it paid for"
    return usage
