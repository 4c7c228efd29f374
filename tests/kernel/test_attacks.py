"""Kill, cancel, stop and the loss of a client at every step of a turn: nobody else is harmed, and nothing is left over.

A victim speaks in a context while a bystander does, on one slot. The attack falls so many rounds of the event loop after the
victim began, for every number of rounds until its call is over before the attack.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from tests.engine.jobs import chat, run
from tests.kernel.context.broken_disk import BrokenDisk
from tests.server.serving import Served, serving

from aios.abi.budget import Budget, Limits, SetBudget, Spent
from aios.abi.calls import Chat
from aios.abi.contexts import ContextClose, ContextFork, ContextId, ContextOpen, ContextRead
from aios.abi.gate import Gate, Token
from aios.abi.types import Message, Role, Sampling, ToolCall, ToolChoice, ToolSpec
from aios.config import ContextConfig, EngineConfig
from aios.configload import load
from aios.engine.base import ChatPrompt, Engine, Job
from aios.engine.opening import open_engine
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, Conflict, NotFound, ProcessGone, ResourceExhausted
from aios.kernel.context.files import HEAD_BYTES, PageFiles
from aios.kernel.context.manager import ContextManager
from aios.kernel.context.pages import PageStore
from aios.kernel.process import Process
from aios.sdk.socket import UnixGate

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.no_cover,
]  # what they pass through is covered by all others

CLOCK = ToolSpec("clock", "tells the time", {"type": "object", "properties": {}})
QUESTION = Message(Role.USER, "what time is it where you are")
MAX_ROUNDS = 400
STEPS = {"queued", "prefill", "tokens", "tool call"}
"""There is none between the last token and the commit: nothing waits there, so nothing can fall in between."""


def answer(job: Job) -> Reply:
    """A pure answer that ends in a tool call if the victim asks."""
    assert isinstance(job.prompt, ChatPrompt)
    said = f"You said {len(job.prompt.messages)} things and I look at the clock."
    calls = (ToolCall("c", "clock", '{"zone": "here"}'),) if job.prompt.tools else ()
    return Reply(said, calls)


@dataclass
class Speaker:
    """A process that speaks in a context."""

    process: Process
    gate: Gate
    context: ContextId
    pieces: list[str] = field(default_factory=list)
    error: AiosError | None = None
    token: str = ""
    gone: anyio.Event | None = None
    """Set when it is to leave its connection, if it has one of its own."""
    call: Chat | None = None
    """What it asks, if not the usual."""

    async def speak(self) -> None:
        """One turn, to its end or its error."""
        usual = Chat(context=self.context, messages=(QUESTION,), sampling=Sampling(seed=1))
        try:
            async with self.gate.open_call(self.call or usual) as frames:
                async for frame in frames:
                    assert isinstance(frame, Token)
                    self.pieces.append(frame.text)
                await frames.result()
        except AiosError as error:
            self.error = error

    async def speak_over_a_socket(
        self, path: str, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """The same through a connection of its own, until it is to leave; started when it is let in."""
        self.gone = anyio.Event()
        async with UnixGate.connect(path, self.token) as gate, anyio.create_task_group() as tasks:
            self.gate = gate
            task_status.started()
            tasks.start_soon(self.speak)
            await self.gone.wait()
            tasks.cancel_scope.cancel()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def step(self, whole: str) -> str:
        """Where its turn is; `whole` is the text that it will have brought."""
        run = next(iter(self.process.runs.values()), None)
        if run is None:
            return "over" if self.text else "door"
        if run.waiting_since_s is not None:
            return "queued"
        if run.running_since_s is None:
            return "commit" if self.text else "door"
        if not self.text:
            return "prefill"
        return "tool call" if self.text == whole else "tokens"


async def speaker(served: Served, name: str, *tools: ToolSpec) -> Speaker:
    """A guest with a context of its own."""
    process, token = served.kernel.admit(name)
    gate = served.kernel.gate(process.pid)
    opened = ContextOpen(messages=(Message(Role.SYSTEM, "be brief"),), tools=tools)
    return Speaker(process, gate, (await gate.call(opened)).value.id, token=token)


async def transcript(served: Served, context: ContextId) -> list[str]:
    read = await served.kernel.init_gate().call(ContextRead(context=context))
    return [message.role.value for message in read.value.messages]


Attack = Callable[[Served, Speaker, anyio.CancelScope], Awaitable[None]]


async def kill(served: Served, victim: Speaker, _: anyio.CancelScope) -> None:
    with suppress(Conflict):
        await served.kernel.signals.kill(victim.process, reason="attack")


async def cancel(_: Served, __: Speaker, scope: anyio.CancelScope) -> None:
    scope.cancel()


async def stop_and_go_on(served: Served, victim: Speaker, _: anyio.CancelScope) -> None:
    await served.kernel.signals.stop(victim.process)
    n_pieces = len(victim.pieces)
    for _i in range(20):
        await checkpoint()
    assert len(victim.pieces) <= n_pieces + 1, "a stopped process was given more text"
    served.kernel.signals.cont(victim.process)


async def go_away(_: Served, victim: Speaker, __: anyio.CancelScope) -> None:
    assert victim.gone is not None
    victim.gone.set()


async def attacked(served: Served, attack: Attack, n_rounds: int, *, whole: str) -> str:
    """Let both speak, attack after so many rounds, and look at what is left. Returns: the step that was hit."""
    victim = await speaker(served, f"victim{n_rounds}", CLOCK)
    bystander = await speaker(served, f"bystander{n_rounds}")
    before = ["system"]
    for each in (victim, bystander):
        limits = SetBudget(pid=each.process.pid, limits=Limits(completion_tokens=1000))
        await served.kernel.init_gate().call(limits)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as victims:
                if attack is go_away:
                    await victims.start(victim.speak_over_a_socket, served.path)
                tasks.start_soon(bystander.speak)
                if attack is not go_away:
                    victims.start_soon(victim.speak)
                for _ in range(n_rounds):
                    await checkpoint()
                step = victim.step(whole)
                await attack(served, victim, scope)
    assert bystander.error is None
    assert bystander.text == whole, "the bystander was harmed"
    assert await transcript(served, bystander.context) == [*before, "user", "assistant"]
    await left_over(served)
    for each in (victim, bystander):
        held = (await served.kernel.init_gate().call(Budget(pid=each.process.pid))).value.held
        assert held == Spent(), "a reservation was not settled"
    if attack is kill:
        assert victim.error is None or isinstance(victim.error, ProcessGone)
        with pytest.raises(NotFound):
            await transcript(served, victim.context)
        return step
    after = await transcript(served, victim.context)
    assert after in (before, [*before, "user", "assistant"]), "half a turn was kept"
    if attack is stop_and_go_on:
        assert (victim.error, victim.text, len(after)) == (None, whole, 3), "a turn was lost"
    return step


async def left_over(served: Served, engine: str = "scripted") -> None:
    """Nothing may be."""
    kernel = served.kernel
    while any(lane.n_granted + lane.n_queued for lane in kernel.scheduler.statistics().values()):
        await checkpoint()
    core = kernel.cores.get(engine)
    assert core.engine is not None
    assert core.engine.statistics().n_running == 0
    kernel.check_invariants()


async def undisturbed(served: Served) -> str:
    """What each of them says when nobody attacks."""
    alone = await speaker(served, "alone", CLOCK)
    await alone.speak()
    assert alone.error is None
    return alone.text


@pytest.mark.parametrize("attack", [kill, cancel, stop_and_go_on, go_away])
async def test_an_attack_at_any_step_of_a_turn_harms_nobody_else(attack: Attack) -> None:
    engine = ScriptedEngine(n_slots=1, script=Script(answer=answer), tokens_per_read=1)
    hit: set[str] = set()
    with anyio.fail_after(60):
        async with serving(engine, http=False) as served:
            whole = await undisturbed(served)
            for n_rounds in range(MAX_ROUNDS):
                hit.add(await attacked(served, attack, n_rounds, whole=whole))
                if "over" in hit:
                    break
    assert hit >= STEPS | {"over"}, f"the steps that were hit are {hit}"


async def test_an_agent_that_floods_is_refused_in_part_and_holds_nobody_up() -> None:
    engine = ScriptedEngine(n_slots=2, script=Script(answer=answer), tokens_per_read=1)
    with anyio.fail_after(30):
        async with serving(engine, http=False) as served:
            whole = await undisturbed(served)
            flooder, _ = served.kernel.admit("flooder")
            done: list[bool] = []

            async def flood() -> None:
                call = Chat(messages=(QUESTION,), sampling=Sampling(seed=1))
                try:
                    await served.kernel.gate(flooder.pid).call(call)
                    done.append(True)
                except ResourceExhausted:
                    done.append(False)

            async with anyio.create_task_group() as tasks:
                for _ in range(1000):
                    tasks.start_soon(flood)
                while sum(done) < 4:
                    await checkpoint()
                bystander = await speaker(served, "bystander")
                n_before = sum(done)
                await bystander.speak()
                n_ahead = sum(done) - n_before
            assert bystander.text == whole
            assert n_ahead <= 8, "it waited for the flood"
            assert len(done) == 1000
            assert done.count(False) >= 500, (
                "what is over the limit of a process is refused at once"
            )
            await left_over(served)


async def test_hundreds_of_forks_that_speak_at_once_leave_their_trunk_as_it_was() -> None:
    engine = ScriptedEngine(n_slots=4, script=Script(answer=answer))
    with anyio.fail_after(60):
        async with serving(engine, http=False) as served:
            trunk = await speaker(served, "trunk")
            await trunk.speak()
            before = await transcript(served, trunk.context)
            fork = ContextFork(context=trunk.context)
            forks = [(await trunk.gate.call(fork)).value.id for _ in range(200)]
            branches = [Speaker(trunk.process, trunk.gate, each) for each in forks]
            async with anyio.create_task_group() as tasks:
                for branch in branches:
                    tasks.start_soon(branch.speak)
            assert {(branch.error, branch.text) for branch in branches} == {
                (None, trunk.text.replace("2", "4"))
            }
            assert await transcript(served, trunk.context) == before
            for each in forks:
                await trunk.gate.call(ContextClose(context=each))
            await left_over(served)


# --- the real model ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def llama(folder: Path, disk: BrokenDisk) -> AsyncIterator[tuple[Engine, list[PageStore]]]:
    """The default model in one slot, with memory for four pages and a disk for eight that may break."""
    stores: list[PageStore] = []

    def open_pages(*, fingerprint: str, page_tokens: int, page_bytes: int) -> PageStore:
        files = PageFiles(
            folder,
            page_bytes=page_bytes,
            budget_bytes=8 * (page_bytes + HEAD_BYTES),
            open_file=disk.open,
        )
        stores.append(
            PageStore(
                fingerprint=fingerprint,
                page_tokens=page_tokens,
                page_bytes=page_bytes,
                budget_bytes=4 * page_bytes,
                files=files,
            )
        )
        return stores[0]

    config = EngineConfig(kind="llama", n_slots=1, window_tokens=256, n_threads=1)
    engine = open_engine("local", config, load().home, open_pages=open_pages)
    await engine.start()
    try:
        yield engine, stores
    finally:
        await engine.aclose()


def damage(folder: Path, how: str) -> int:
    """Spoil every page that is on disk. Returns: how many."""
    paths = list(folder.glob("*/*.page"))
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if how == "torn" else whole[:-1] + b"?")
    return len(paths)


async def first_token(engine: Engine, job: Job) -> dict[str, float]:
    """The log-probabilities of the likeliest first tokens.

    They depend a little on where a prompt is cut into batches, which depends on what pages hold: a near tie may fall otherwise.
    """
    row = (await run(engine, job)).logprobs[0]
    return {each.token: each.logprob for each in row.top}


@pytest.mark.model
async def test_a_broken_disk_and_damaged_pages_cost_time_and_no_token(tmp_path: Path) -> None:
    disk = BrokenDisk()
    prompts = [f"Write about {topic}. " * 9 for topic in ("the sea", "a garden", "old trains")]
    jobs = [chat(prompt, max_tokens=4, top_logprobs=5) for prompt in prompts]
    with anyio.fail_after(240):
        async with llama(tmp_path, disk) as (engine, [store]):
            expected = [await first_token(engine, job) for job in jobs]
            for trouble in ("none", "full", "unreadable", "torn", "altered"):
                disk.is_full, disk.is_unreadable = trouble == "full", trouble == "unreadable"
                if trouble == "full":
                    for path in tmp_path.glob("*/*.page"):
                        path.unlink()
                if trouble in ("torn", "altered"):
                    store.flush_all()
                    assert damage(tmp_path, trouble) > 0
                for job, likely in zip(jobs, expected, strict=True):
                    found = await first_token(engine, job)
                    both = found.keys() & likely.keys()
                    assert len(both) >= 3, trouble
                    worst = max(abs(found[token] - likely[token]) for token in both)
                    assert worst < 0.2, f"{trouble}: other rows than the prompt's, by {worst}"
                store.check_invariants()
            numbers = store.statistics()
    assert numbers.n_failed_writes > 0
    assert numbers.n_damaged > 0
    assert numbers.n_on_disk <= 8
    assert numbers.n_in_use == numbers.n_pinned == 0


STORY = Message(Role.USER, "Please tell me a long story about a lighthouse and its keeper. " * 4)


async def until(is_there: Callable[[], bool]) -> None:
    """Return when a step of a real generation is reached."""
    while not is_there():
        await anyio.sleep(0.001)


async def attack_real(served: Served, attack: Attack, step: str) -> None:
    """One attack at a named step of a turn of the real model, while a bystander speaks."""
    tools = (CLOCK,) if step == "tool call" else ()
    victim = await speaker(served, f"{attack.__name__} {step}".replace(" ", "-"), *tools)
    victim.call = Chat(
        context=victim.context,
        messages=(
            msgspec.structs.replace(STORY, content=f"{step} {attack.__name__}: {STORY.text()}"),
        ),
        tool_choice=ToolChoice("required" if tools else "auto"),
        sampling=Sampling(temperature=0, seed=1),
        max_tokens=12,
    )

    def is_there() -> bool:
        run = next(iter(victim.process.runs.values()), None)
        if run is None:
            return False
        if step == "queued":
            return run.waiting_since_s is not None
        if step == "prefill":
            return run.running_since_s is not None
        return victim.process.usage.completion_tokens >= 3

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as victims:
                if step == "queued":
                    tasks.start_soon(bystand, served)
                    await anyio.sleep(0.05)
                victims.start_soon(victim.speak)
                await until(is_there)
                if step != "queued":
                    tasks.start_soon(bystand, served)
                await attack(served, victim, scope)
    await left_over(served, "local")
    if attack is not kill:
        n_messages = len(await transcript(served, victim.context))
        assert n_messages in ((3,) if attack is stop_and_go_on else (1, 3))
    if attack is stop_and_go_on:
        assert victim.error is None


async def bystand(served: Served) -> None:
    """Ask the same as ever and expect the same answer."""
    call = Chat(messages=(QUESTION,), sampling=Sampling(temperature=0, seed=1), max_tokens=6)
    answers = [(await served.kernel.init_gate().call(call)).value.message.text() for _ in range(2)]
    assert answers[0] == answers[1], "a bystander was given other tokens"


@pytest.mark.model
@pytest.mark.parametrize("attack", [kill, cancel, stop_and_go_on])
async def test_an_attack_at_any_step_of_a_real_turn_harms_nobody_else(
    attack: Attack, tmp_path: Path
) -> None:
    config = EngineConfig(kind="llama", n_slots=1, window_tokens=512, n_threads=1)
    pages = ContextManager(ContextConfig(ram_bytes=64 << 20), tmp_path)
    with anyio.fail_after(240):
        engine = open_engine("local", config, load().home, open_pages=pages.open_pages)
        async with serving(engines={"local": engine}, http=False) as served:
            await bystand(served)
            for step in ("queued", "prefill", "tokens", "tool call"):
                await attack_real(served, attack, step)
    [numbers] = pages.statistics().values()
    assert numbers.n_pins == numbers.n_in_use == 0, "a generation that is gone holds pages"
