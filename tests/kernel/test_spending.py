import random
from contextlib import suppress

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from msgspec.structs import replace
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import MakeProgram, OpenKernel
from tests.kernel.tools.offering import declared, offer

from aios.abi.budget import Budget, BudgetInfo, Limits, OnBreach, SetBudget, Spent
from aios.abi.calls import Chat, Cont, Embed, Spawn
from aios.abi.tools import ToolJob, Traits
from aios.abi.types import Pid, State
from aios.config import KernelConfig
from aios.engine.base import Ability
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import (
    AccessDenied,
    AiosError,
    BudgetExceeded,
    DeadlineExceeded,
    ProcessGone,
    ResourceExhausted,
    ToolFailed,
)
from aios.kernel.budget import Amounts, Ledger, Reservation, Shortage
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def limit(
    kernel: Kernel, pid: Pid, limits: Limits, *, on_breach: OnBreach = "fail"
) -> BudgetInfo:
    call = SetBudget(pid=pid, limits=limits, on_breach=on_breach)
    return (await kernel.init_gate().call(call)).value


async def budget(kernel: Kernel, pid: Pid) -> BudgetInfo:
    """As it is, but for the time: it passes."""
    about = (await kernel.init_gate().call(Budget(pid=pid))).value
    return replace(about, spent=replace(about.spent, wall_ms=0))


def answering(n_tokens: int = 10, *, n_slots: int = 8) -> ScriptedEngine:
    return ScriptedEngine(n_slots=n_slots, script=Script(answer_tokens=n_tokens))


async def test_what_a_call_really_used_is_booked_on_it_and_on_all_above(booted: OpenKernel) -> None:
    async with booted(answering(10)) as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("child", idle, ppid=parent)
        await limit(kernel, parent, Limits(completion_tokens=1000))
        answer = (await kernel.gate(child).call(chat(max_tokens=500))).value
        for pid in (parent, child):
            about = await budget(kernel, pid)
            assert about.spent.completion_tokens == answer.usage.completion_tokens
            assert about.spent.prompt_tokens == answer.usage.prompt_tokens
            assert about.spent.calls == 1
            assert about.held == Spent()
            assert about.left.completion_tokens == 1000 - answer.usage.completion_tokens


async def test_what_does_not_fit_is_not_begun(booted: OpenKernel) -> None:
    engine = answering(10)
    async with booted(engine) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=20))
        with pytest.raises(BudgetExceeded, match="may need 21 completion tokens"):
            await kernel.gate(pid).call(chat(max_tokens=21))
        assert engine.statistics().n_sequences == 0
        assert (await budget(kernel, pid)).spent == Spent()


async def test_a_call_without_a_limit_of_its_own_ends_where_the_budget_does(
    booted: OpenKernel,
) -> None:
    async with booted(answering(100)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=7))
        answer = (await kernel.gate(pid).call(chat())).value
        assert answer.finish.value == "length"
        assert answer.usage.completion_tokens == 7
        with pytest.raises(BudgetExceeded):
            await kernel.gate(pid).call(chat())


async def test_a_breach_stops_the_process_until_it_may_go_on(booted: OpenKernel) -> None:
    async with booted(answering(10)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        process = kernel.table.get(pid)
        await limit(kernel, pid, Limits(calls=1), on_breach="pause")
        await kernel.gate(pid).call(chat(max_tokens=5))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.gate(pid).call, chat(max_tokens=5))
                await anyio.wait_all_tasks_blocked()
                assert process.state is State.STOPPED
                assert "aios budget" in process.log.lines[-1].text
                assert process.info(0.0).activity == "chat over budget"
                kernel.signals.cont(process)  # nothing has changed: it is stopped again
                await anyio.wait_all_tasks_blocked()
                assert process.state is State.STOPPED
                await limit(kernel, pid, Limits(calls=2), on_breach="pause")
                kernel.signals.cont(process)
        assert (await budget(kernel, pid)).spent.calls == 2


async def test_a_paused_call_can_run_into_its_deadline_and_holds_nothing(
    booted: OpenKernel,
) -> None:
    async with booted(answering(10)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(calls=0), on_breach="pause")
        with pytest.raises(DeadlineExceeded):
            await kernel.gate(pid).call(chat(deadline_s=0.05))
        assert (await budget(kernel, pid)).held == Spent()


async def test_a_call_that_is_cut_off_books_what_it_got(booted: OpenKernel) -> None:
    async with booted(slow_engine(n_tokens=1000)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=1000))
        with pytest.raises(DeadlineExceeded):
            await kernel.gate(pid).call(chat(max_tokens=1000, deadline_s=0.1))
        about = await budget(kernel, pid)
        assert 0 < about.spent.completion_tokens < 1000
        assert about.held == Spent()


async def test_a_call_that_was_paused_takes_what_is_left_when_it_goes_on(
    booted: OpenKernel,
) -> None:
    """Not the whole window, which it would have needed when nothing was left: then no sensible limit would let it go."""
    async with booted(answering(100)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=0), on_breach="pause")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.gate(pid).call, chat())
                await anyio.wait_all_tasks_blocked()
                assert kernel.table.get(pid).is_stopped
                await limit(kernel, pid, Limits(completion_tokens=50), on_breach="pause")
                kernel.signals.cont(kernel.table.get(pid))
        assert (await budget(kernel, pid)).spent.completion_tokens == 50


@pytest.mark.no_cover
async def test_a_crowd_that_waits_for_one_budget_looks_at_it_a_few_times_each(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all that wait looked again whenever one is served, a hundred calls would look 5,000 times."""
    n_looks = 0
    reserve = Ledger.reserve

    def counted(ledger: Ledger, pid: Pid, amounts: Amounts) -> Reservation | Shortage:
        nonlocal n_looks
        n_looks += 1
        return reserve(ledger, pid, amounts)

    monkeypatch.setattr(Ledger, "reserve", counted)
    async with booted(answering(10)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=10_000), on_breach="fail")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(kernel.gate(pid).call, chat(max_tokens=5_000))
        about = await budget(kernel, pid)
        assert about.held == Spent()
        assert about.spent.completion_tokens == 1000
    assert n_looks <= 500


@pytest.mark.parametrize("how", ["kill", "stop", "deadline"])
async def test_who_waits_first_and_does_not_look_keeps_nobody_behind(
    booted: OpenKernel, how: str
) -> None:
    async with booted(slow_engine(n_slots=4, n_tokens=1000, token_delay_s=0.005)) as kernel:
        boss = kernel.spawn_task("boss", idle)
        first, second, third = (kernel.spawn_task(name, idle, ppid=boss) for name in "abc")
        await limit(kernel, boss, Limits(completion_tokens=1100))

        async def ask(pid: Pid, n_tokens: int, deadline_s: float | None = None) -> None:
            with suppress(DeadlineExceeded, ProcessGone):
                await kernel.gate(pid).call(chat(max_tokens=n_tokens, deadline_s=deadline_s))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, first, 1000)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(ask, second, 200, 0.05 if how == "deadline" else None)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(ask, third, 110)
                await anyio.wait_all_tasks_blocked()
                assert (await budget(kernel, third)).held == Spent()
                if how == "kill":
                    await kernel.signals.kill(kernel.table.get(second), reason="test")
                elif how == "stop":
                    await kernel.signals.stop(kernel.table.get(second))
                await kernel.signals.kill(kernel.table.get(first), reason="test")
                while not (await budget(kernel, third)).spent.completion_tokens:
                    await anyio.wait_all_tasks_blocked()
                if how == "stop":
                    kernel.signals.cont(kernel.table.get(second))
        assert (await budget(kernel, boss)).held == Spent()


@pytest.mark.parametrize("on_breach", ["pause", "fail"])
async def test_a_call_waits_for_what_others_hold_and_will_give_back(
    booted: OpenKernel, on_breach: OnBreach
) -> None:
    """Calls without `max_tokens` hold all that is left: the next is no breach, it only waits for the first to end."""
    async with booted(answering(10)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=45), on_breach=on_breach)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(kernel.gate(pid).call, chat())
        about = await budget(kernel, pid)
        assert about.spent.completion_tokens == 40
        assert about.held == Spent()


async def test_who_waits_for_others_learns_of_other_limits(booted: OpenKernel) -> None:
    async with booted(slow_engine(n_tokens=1000)) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(completion_tokens=100))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.gate(pid).call, chat())
                await anyio.wait_all_tasks_blocked()

                async def second() -> None:
                    with pytest.raises(BudgetExceeded):
                        await kernel.gate(pid).call(chat(max_tokens=60))

                tasks.start_soon(second)
                await anyio.wait_all_tasks_blocked()
                await limit(kernel, pid, Limits(completion_tokens=50))


@pytest.mark.parametrize(
    "call", [chat(max_tokens=9, deadline_s=0.05), Embed(texts=("a b",), deadline_s=0.05)]
)
async def test_a_call_that_no_engine_was_given_costs_nothing(
    booted: OpenKernel, call: Chat | Embed
) -> None:
    engine = ScriptedEngine(
        n_slots=1,
        abilities=frozenset(Ability) - {Ability.SUSPEND},
        script=Script(answer_tokens=1000, token_delay_s=0.01),
    )
    async with booted(engine) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(prompt_tokens=1000))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.init_gate().call, chat())
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(DeadlineExceeded):
                    await kernel.gate(pid).call(call)
                assert (await budget(kernel, pid)).spent == Spent()
                tasks.cancel_scope.cancel()


async def test_texts_for_vectors_count_as_prompt(booted: OpenKernel) -> None:
    async with booted(answering()) as kernel:
        pid = kernel.spawn_task("agent", idle)
        await limit(kernel, pid, Limits(prompt_tokens=8))
        await kernel.gate(pid).call(Embed(texts=("two words",)))
        with pytest.raises(BudgetExceeded, match="prompt tokens"):
            await kernel.gate(pid).call(Embed(texts=("many more words than are left of it",)))


async def test_nobody_sets_a_budget_of_their_own_or_of_strangers(booted: OpenKernel) -> None:
    async with booted() as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("child", idle, ppid=parent)
        gate = kernel.gate(parent)
        await gate.call(SetBudget(pid=child, limits=Limits(calls=1)))
        with pytest.raises(AccessDenied, match="of their own"):
            await gate.call(SetBudget(pid=parent, limits=Limits()))
        with pytest.raises(AccessDenied):
            await kernel.gate(child).call(SetBudget(pid=parent, limits=Limits()))
        with pytest.raises(AccessDenied):
            await kernel.gate(child).call(Budget(pid=parent))


async def test_children_count_while_they_live(booted: OpenKernel, program: MakeProgram) -> None:
    folder = program("import time; time.sleep(60)")
    async with booted() as kernel:
        kernel.urls.append("unix:///nowhere")
        parent = kernel.spawn_task("parent", idle)
        await limit(kernel, parent, Limits(children=1))
        gate = kernel.gate(parent)
        child = (await gate.call(Spawn(program=folder))).value.pid
        assert (await budget(kernel, parent)).held.children == 1
        with pytest.raises(BudgetExceeded, match="1 children"):
            await gate.call(Spawn(program=folder))
        await kernel.signals.kill(kernel.table.get(child), reason="test")
        assert (await budget(kernel, parent)).held.children == 0
        with pytest.raises(AiosError):
            await gate.call(Spawn(program="/nowhere"))
        assert (await budget(kernel, parent)).held.children == 0


async def test_programs_below_one_are_bounded(booted: OpenKernel, program: MakeProgram) -> None:
    spawn = Spawn(program=program("import time; time.sleep(60)"))
    async with booted(limits=KernelConfig(max_children=1)) as kernel:
        kernel.urls.append("unix:///nowhere")
        above = kernel.spawn_task("above", idle)
        below = kernel.spawn_task("below", idle, ppid=above)
        await kernel.gate(below).call(spawn)
        with pytest.raises(ResourceExhausted, match=f"process {above} and what it started"):
            await kernel.gate(above).call(spawn)
        await limit(kernel, above, Limits(children=2))
        await kernel.gate(above).call(spawn)


async def test_a_program_brings_its_budget_and_who_starts_it_may_give_another(
    booted: OpenKernel, program: MakeProgram
) -> None:
    manifest = 'name = "prog"\n[budget]\ncalls = 3\n'
    folder = program("import time; time.sleep(60)", manifest=manifest)
    async with booted() as kernel:
        kernel.urls.append("unix:///nowhere")
        gate = kernel.init_gate()
        own = (await gate.call(Spawn(program=folder))).value.pid
        given = (await gate.call(Spawn(program=folder, budget=Limits(calls=9)))).value.pid
        assert (await budget(kernel, own)).limits == Limits(calls=3)
        assert (await budget(kernel, given)).limits == Limits(calls=9)


@pytest.mark.parametrize("seed", range(3))
async def test_a_hundred_children_under_one_cap_never_overspend(
    booted: OpenKernel, seed: int
) -> None:
    """Random lengths, cancels and kills, all at once: the sum stays within the cap at every look and at the end."""
    draw = random.Random(seed)  # noqa: S311 - the seed is in the test's name
    cap = 2_000
    async with booted(slow_engine(n_slots=8, n_tokens=30, token_delay_s=0.0001)) as kernel:
        parent = kernel.spawn_task("parent", idle)
        await limit(kernel, parent, Limits(completion_tokens=cap))
        children = [kernel.spawn_task(f"c{i}", idle, ppid=parent) for i in range(100)]
        got = [0]

        async def work(pid: Pid) -> None:
            for _ in range(3):
                call = Chat(messages=chat().messages, max_tokens=draw.choice([5, 40, 200]))
                with anyio.move_on_after(0.001 if draw.random() < 0.2 else 30):
                    try:
                        answer = (await kernel.gate(pid).call(call)).value
                    except AiosError:
                        continue
                    got[0] += answer.usage.completion_tokens

        async def look() -> None:
            while True:
                about = await budget(kernel, parent)
                assert about.spent.completion_tokens + about.held.completion_tokens <= cap
                await anyio.sleep(0.002)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as watch:
                watch.start_soon(look)
                async with anyio.create_task_group() as tasks:
                    for pid in children:
                        tasks.start_soon(work, pid)
                    for pid in children[:5]:
                        await anyio.sleep(draw.random() * 0.01)
                        await kernel.signals.kill(kernel.table.get(pid), reason="test")
                watch.cancel_scope.cancel()
        about = await budget(kernel, parent)
        assert 0 < got[0] <= about.spent.completion_tokens <= cap
        assert about.held.completion_tokens == 0


async def test_written_bytes_are_counted_and_a_write_that_does_not_fit_is_not_done(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("agent", idle)
        files = Client(kernel.gate(pid)).files
        await limit(kernel, pid, Limits(written_bytes=10))
        await files.write("/shared/a", b"12345678")
        with pytest.raises(BudgetExceeded):
            await files.write("/shared/a", b"123")
        with pytest.raises(AiosError):
            await files.write("/agents/other/a", b"1")
        about = await budget(kernel, pid)
        assert (about.spent.written_bytes, about.held, about.left.written_bytes) == (8, Spent(), 2)
        assert await files.read("/shared/a") == b"12345678"


async def test_a_breach_of_tool_calls_stops_the_process_until_more_is_given(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("agent", idle)
        client = Client(kernel.gate(pid))
        await limit(kernel, pid, Limits(tool_calls=1), on_breach="pause")
        await client.tools.run("clock")
        results: list[str] = []

        async def again() -> None:
            results.append((await client.tools.run("clock")).text)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(again)
                await wait_all_tasks_blocked()
                assert (kernel.table.get(pid).state, results) == (State.STOPPED, [])
                await limit(kernel, pid, Limits(tool_calls=2), on_breach="pause")
                await Client(kernel.init_gate()).cont(pid)
        assert len(results) == 1
        assert (await budget(kernel, pid)).spent.tool_calls == 2


@pytest.mark.parametrize("seed", [None, 7])  # drawn in the test: all workers must collect the same
async def test_a_hundred_children_that_fail_and_are_cancelled_never_overspend_on_tools(
    booted: OpenKernel, seed: int | None
) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}")  # noqa: T201 - to run it again
    draw = random.Random(seed)  # noqa: S311 - to be run again
    begun: list[int] = []

    async def carry(_: ToolJob) -> str:
        begun.append(3)
        await anyio.sleep(draw.random() * 0.002)
        if draw.random() < 0.3:
            raise ToolFailed("it fails")
        return "done"

    async with booted() as kernel:
        await offer(kernel, "worker", carry, declared("dig", Traits(cost=3, max_parallel=64)))
        parent = kernel.spawn_task("parent", idle)
        await limit(kernel, parent, Limits(tool_calls=200), on_breach="fail")
        children = [kernel.spawn_task(f"child{n}", idle, ppid=parent) for n in range(100)]
        for child in children:
            await limit(kernel, child, Limits(), on_breach="fail")

        async def work(pid: Pid) -> None:
            for _ in range(2):
                with suppress(AiosError), anyio.move_on_after(draw.random() * 0.02):
                    await Client(kernel.gate(pid)).tools.run("worker/dig")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for child in children:
                    tasks.start_soon(work, child)
                for child in draw.sample(children, 10):
                    await anyio.sleep(draw.random() * 0.002)
                    await Client(kernel.init_gate()).kill(child)
        about = await budget(kernel, parent)
        assert sum(begun) <= about.spent.tool_calls <= 200
        assert about.held.tool_calls == 0


async def test_when_the_time_of_a_tree_is_over_all_of_it_is_stopped_until_it_gets_more(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        parent = kernel.spawn_task("parent", idle)
        child = kernel.table.get(kernel.spawn_task("child", idle, ppid=parent))
        other = kernel.table.get(kernel.spawn_task("other", idle))
        with anyio.fail_after(30):
            await limit(kernel, parent, Limits(wall_ms=30), on_breach="pause")
            await wait_stopped(kernel, parent, child.pid)
            assert not other.is_stopped
            about = (await gate.call(Budget(pid=parent))).value
            assert 30 <= about.spent.wall_ms < 5_000
            assert (about.left.wall_ms, (await budget(kernel, child.pid)).left.wall_ms) == (0, 0)
            lines, _, _ = child.log.read(0)
            assert f"`aios budget {parent} wall_ms=+N --cont`" in lines[-1].text
            await gate.call(Cont(pid=parent))  # without more time it is stopped again
            await wait_stopped(kernel, parent, child.pid)
            await limit(kernel, parent, Limits(wall_ms=10_000_000), on_breach="pause")
            await gate.call(Cont(pid=parent))
            for _ in range(3):
                await wait_all_tasks_blocked()
            assert not child.is_stopped


async def wait_stopped(kernel: Kernel, *pids: Pid) -> None:
    while not all(kernel.table.get(pid).is_stopped for pid in pids):
        await anyio.sleep(0.005)
