import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import anyio
import pytest
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel
from tests.kernel.test_programs import ONCE, home, program
from tests.kernel.test_programs import booted as durable
from tests.kernel.tools.offering import declared, echo, offer

from aios.abi.budget import Limits, SetBudget
from aios.abi.call import Answer, Call
from aios.abi.calls import Cont, ExitSelf, GetPid, Kill, Logs, Nice, Ps, SendSignal, Stop, Wait
from aios.abi.contexts import ContextForget
from aios.abi.gate import Token
from aios.abi.mail import Receive
from aios.abi.mounts import FileMount, FileUmount
from aios.abi.storage import FileEdit, FileStat, Put
from aios.abi.tools import ToolRun, Traits
from aios.abi.types import Pid, State
from aios.engine.base import Ability
from aios.engine.script import Script
from aios.engine.scripted import ABILITIES, ScriptedEngine
from aios.errors import (
    AccessDenied,
    AiosError,
    Conflict,
    DeadlineExceeded,
    DiskFailed,
    KernelStopping,
    NotFound,
    ProcessGone,
)
from aios.kernel.gate import LocalGate
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.journal.records import Outcome
from aios.kernel.journal.tables import load
from aios.kernel.kernel import Kernel
from aios.kernel.process import INIT_PID
from aios.kernel.residents import read_residents
from aios.sdk.requests import build

__all__ = ("home",)  # a fixture


def guest(kernel: Kernel, name: str = "guest", *, parent: Pid = Pid(1)) -> tuple[Pid, LocalGate]:
    process, _ = kernel.admit(name, parent=kernel.table.get(parent))
    return process.pid, kernel.gate(process.pid)


@pytest.mark.anyio
async def test_a_call_of_a_stopped_process_waits_at_the_door_until_it_goes_on(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)
            await kernel.init_gate().call(Stop(pid=pid))
            done = anyio.Event()

            async def ask() -> None:
                await gate.call(GetPid())
                done.set()

            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert not done.is_set()
            await kernel.init_gate().call(Cont(pid=pid))
            await done.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("is_stopped_before", [False, True])
@pytest.mark.parametrize("meanwhile", ["nothing", "cont", "stop", "stop and cont"])
async def test_who_is_frozen_goes_on_when_it_thaws_if_whoever_spoke_last_lets_it(
    booted: OpenKernel, is_stopped_before: bool, meanwhile: str
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)
            process, owner = kernel.table.get(pid), kernel.init_gate()
            done = anyio.Event()

            async def ask() -> None:
                await gate.call(GetPid())
                done.set()

            if is_stopped_before:
                await owner.call(Stop(pid=pid))
            kernel.signals.freeze(process)
            kernel.signals.freeze(process)
            tasks.start_soon(ask)
            if "stop" in meanwhile:
                await owner.call(Stop(pid=pid))
            if "cont" in meanwhile:
                await owner.call(Cont(pid=pid))
            kernel.signals.thaw(process)
            await anyio.wait_all_tasks_blocked()
            assert not done.is_set(), "somebody holds it still"
            kernel.signals.thaw(process)
            await anyio.wait_all_tasks_blocked()
            stays = meanwhile == "stop" or (is_stopped_before and meanwhile == "nothing")
            assert done.is_set() != stays
            await owner.call(Cont(pid=pid))
            await done.wait()


@pytest.mark.anyio
async def test_stop_halts_a_generation_and_cont_lets_it_go_on_without_a_gap(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=200, token_delay_s=0)) as plain:
            whole = (await plain.init_gate().call(chat(max_tokens=200))).value.message.text()
        async with booted(slow_engine(n_tokens=200)) as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)
            pieces: list[str] = []
            started, over = anyio.Event(), anyio.Event()

            async def talk() -> None:
                async with gate.open_call(chat(max_tokens=200)) as frames:
                    async for frame in frames:
                        assert isinstance(frame, Token)
                        pieces.append(frame.text)
                        started.set()
                    assert (await frames.result()).n_preemptions == 1
                over.set()

            tasks.start_soon(talk)
            await started.wait()
            await kernel.init_gate().call(Stop(pid=pid))
            await anyio.wait_all_tasks_blocked()
            n_before = len("".join(pieces))
            assert kernel.table.get(pid).state is State.STOPPED
            assert kernel.scheduler.statistics()["engine:engine0"].n_granted == 0, (
                "its slot is free"
            )
            other = await kernel.init_gate().call(chat(max_tokens=3))
            assert other.value.usage.completion_tokens == 3
            assert len("".join(pieces)) == n_before, "a stopped process got more text"
            await kernel.init_gate().call(Cont(pid=pid))
            await over.wait()
            assert len("".join(pieces)) > n_before
            assert "".join(pieces) == whole


@pytest.mark.anyio
async def test_kill_ends_the_calls_in_flight_and_refuses_new_ones(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)
            faults: list[AiosError] = []

            async def talk() -> None:
                with pytest.raises(ProcessGone) as caught:
                    await gate.call(chat())
                faults.append(caught.value)

            tasks.start_soon(talk)
            await anyio.wait_all_tasks_blocked()
            await kernel.init_gate().call(Kill(pid=pid, reason="enough"))
            assert kernel.table.get(pid).state is State.EXITED
            assert kernel.scheduler.statistics()["engine:engine0"].n_granted == 0
            with pytest.raises(ProcessGone, match="137: enough"):
                await gate.call(GetPid())
            await anyio.wait_all_tasks_blocked()
            assert len(faults) == 1


@pytest.mark.anyio
async def test_kill_and_stop_reach_the_whole_tree_and_nobody_else(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            top, _ = guest(kernel, "top")
            child, _ = guest(kernel, "child", parent=top)
            grandchild, _ = guest(kernel, "grandchild", parent=child)
            bystander, _ = guest(kernel, "bystander")
            init = kernel.init_gate()
            assert set((await init.call(Stop(pid=top))).value.pids) == {top, child, grandchild}
            assert kernel.table.get(bystander).state is State.WAITING
            assert set((await init.call(Kill(pid=child))).value.pids) == {child, grandchild}
            assert kernel.table.get(top).state is State.STOPPED
            await init.call(Kill(pid=top))
            living = [row.pid for row in (await init.call(Ps())).value.processes]
            assert living == [1, bystander]


@pytest.mark.anyio
async def test_a_process_can_kill_itself(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid, gate = guest(kernel)
            assert (await gate.call(Kill(pid=pid))).value.pids == (pid,)
            assert (await kernel.init_gate().call(Wait(pid=pid))).value.exit.status == 137


@pytest.mark.anyio
async def test_a_process_can_stop_itself_and_is_let_go_by_another(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid, gate = guest(kernel)
            assert (await gate.call(Stop(pid=pid))).value.pids == (pid,)
            with pytest.raises(DeadlineExceeded):
                await gate.call(GetPid(deadline_s=0.01))
            await kernel.init_gate().call(Cont(pid=pid))
            await gate.call(GetPid())


@pytest.mark.anyio
async def test_init_cannot_be_signalled_and_the_dead_cannot_either(booted: OpenKernel) -> None:
    async with booted() as kernel:
        init = kernel.init_gate()
        for call in (Kill(pid=Pid(1)), Stop(pid=Pid(1)), Cont(pid=Pid(1))):
            with pytest.raises(AccessDenied, match="init"):
                await init.call(call)
        pid, gate = guest(kernel)
        await gate.call(ExitSelf())
        for call in (Kill(pid=pid), Stop(pid=pid), Cont(pid=pid)):
            with pytest.raises(Conflict, match="has exited with status 0"):
                await init.call(call)


@pytest.mark.anyio
async def test_a_stopped_process_can_be_killed(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)

            async def talk() -> None:
                with pytest.raises(ProcessGone):
                    await gate.call(chat())

            tasks.start_soon(talk)
            await anyio.wait_all_tasks_blocked()
            await kernel.init_gate().call(Stop(pid=pid))
            process, signs = kernel.table.get(pid), list[object]()
            process.on_kill, process.on_stop = lambda: signs.append("kill"), signs.append
            await kernel.init_gate().call(Kill(pid=pid))
            assert signs == ["kill", False], "it would act between"


@pytest.mark.anyio
async def test_an_engine_that_cannot_suspend_is_not_read_while_its_process_is_stopped(
    booted: OpenKernel,
) -> None:
    engine = ScriptedEngine(
        n_slots=1,
        script=Script(answer_tokens=50, token_delay_s=0.002),
        abilities=ABILITIES - {Ability.SUSPEND},
    )
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)
            texts: list[str] = []
            over = anyio.Event()

            async def talk() -> None:
                async with gate.open_call(chat()) as frames:
                    texts.extend([f.text async for f in frames if isinstance(f, Token)])
                over.set()

            tasks.start_soon(talk)
            await anyio.wait_all_tasks_blocked()
            await kernel.init_gate().call(Stop(pid=pid))
            await kernel.init_gate().call(Cont(pid=pid))
            await over.wait()
            assert kernel.table.get(pid).usage.completion_tokens == 50


@pytest.mark.anyio
async def test_term_asks_guests_by_a_letter_and_usr1_writes_to_one_alone(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            top, gate = guest(kernel, "top")
            child, child_gate = guest(kernel, "child", parent=top)
            init = kernel.init_gate()
            usr1 = SendSignal(pid=top, signal="USR1")
            assert (await init.call(usr1)).value.pids == (top,)
            await init.call(usr1)  # the first was not read yet
            assert (await init.call(SendSignal(pid=top, signal="TERM"))).value.pids == (top, child)
            for mailbox, texts in ((gate, ["USR1", "TERM"]), (child_gate, ["TERM"])):
                letters = (await mailbox.call(Receive(topic="signal", limit=9))).value.letters
                assert [(each.sender, each.body) for each in letters] == [(1, t) for t in texts]
            with pytest.raises(AccessDenied):
                await child_gate.call(SendSignal(pid=top, signal="USR1"))
            with pytest.raises(AccessDenied, match="init"):
                await init.call(SendSignal(pid=Pid(1), signal="TERM"))


@pytest.mark.anyio
async def test_signals_by_name_are_kill_stop_and_cont(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid, _ = guest(kernel)
            init, process = kernel.init_gate(), kernel.table.get(pid)
            await init.call(SendSignal(pid=pid, signal="STOP"))
            assert process.is_stopped
            await init.call(SendSignal(pid=pid, signal="CONT"))
            assert [row.state for row in (await init.call(Ps())).value.processes][
                1
            ] is State.WAITING
            await init.call(SendSignal(pid=pid, signal="KILL"))
            assert process.exit is not None
            assert process.exit.status == 137
            with pytest.raises(Conflict):
                await init.call(SendSignal(pid=pid, signal="USR1"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.anyio
async def test_nothing_leaks_whatever_is_stopped_killed_or_cancelled_and_when(
    booted: OpenKernel, seed: int
) -> None:
    """Invariants 1, 4 and 9: every call ends once, signals hold, no turn or call leaks."""
    chance = Random(seed)  # noqa: S311 - the seed is the test's name
    ends: list[str] = []
    n_started = 0

    async def agent(gate: LocalGate) -> None:
        nonlocal n_started
        while True:
            n_started += 1
            try:
                with anyio.move_on_after(chance.uniform(0.001, 0.03)) as scope:
                    if chance.random() < 0.5:
                        await gate.call(chat(max_tokens=5))
                    else:
                        async with gate.open_call(chat(max_tokens=5)) as frames:
                            async for _ in frames:
                                if chance.random() < 0.2:
                                    break
                ends.append("cancelled" if scope.cancelled_caught else "done")
            except AiosError as error:
                ends.append(error.code)
                if isinstance(error, ProcessGone):
                    return

    with anyio.fail_after(30):
        async with booted(slow_engine(n_slots=2, n_tokens=20, token_delay_s=0.0005)) as kernel:
            init = kernel.init_gate()
            async with anyio.create_task_group() as tasks:
                pids = []
                for number in range(8):
                    pid, gate = guest(kernel, f"agent{number}")
                    pids.append(pid)
                    tasks.start_soon(agent, gate)
                for _ in range(60):
                    await anyio.sleep(chance.uniform(0, 0.004))
                    pid = chance.choice(pids)
                    call = chance.choice([Stop, Cont, Cont])(pid=pid)
                    await init.call(call)
                    if isinstance(call, Stop):
                        process = kernel.table.get(pid)
                        n_before = process.usage.completion_tokens
                        assert process.is_quiet()
                        await anyio.sleep(0.002)
                        # The prompt of a call that is cut off meanwhile is counted then; it was computed before.
                        assert process.usage.completion_tokens == n_before, (
                            f"a stopped process computed (seed {seed})"
                        )
                    kernel.check_invariants()
                for pid in pids:
                    await init.call(Kill(pid=pid))
                kernel.check_invariants()
            assert len(ends) == n_started, f"a call ended twice or never (seed {seed})"
            assert all(not process.runs for process in kernel.table)


@pytest.mark.anyio
async def test_a_write_of_a_stopped_process_leaves_the_queue_and_is_done_when_it_goes_on(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            pid, gate = guest(kernel)
            reading = threading.Event()

            async def write() -> None:
                await gate.call(FileEdit(edits=(Put("note", b"x"),)))

            tasks.start_soon(kernel.db.write, lambda _: reading.wait(10))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            await kernel.init_gate().call(Stop(pid=pid))  # though nothing can be written
            reading.set()
            await kernel.db.write(lambda _: None)
            with pytest.raises(NotFound):
                await kernel.init_gate().call(FileStat(path="/agents/guest/note"))
            await kernel.init_gate().call(Cont(pid=pid))
        async with booted() as kernel:
            await kernel.init_gate().call(FileStat(path="/agents/guest/note"))


@pytest.mark.anyio
async def test_who_waits_for_a_program_that_is_brought_back_is_told_that_the_kernel_ends(
    home: Path,
) -> None:
    async with durable(home) as (kernel, client):
        path = program(home, "    client.mail.receive()\n")
        back = (await client.spawn(path, restart=ONCE)).pid
        plain = (await client.spawn(path)).pid
        guest = (await client.admit("ann")).pid
        heard: dict[int, str] = {}

        async def listen(pid: Pid, *, by_log: bool) -> None:
            key = -pid if by_log else pid
            try:
                if by_log:
                    await client.gate.call(build(Logs, pid=pid, follow=True))
                    heard[key] = "the end"
                else:
                    heard[key] = (await client.wait(pid)).exit.reason
            except KernelStopping as stopping:
                heard[key] = stopping.code

        async with anyio.create_task_group() as tasks:
            for pid in (back, plain, guest):
                tasks.start_soon(partial(listen, pid, by_log=False))
                tasks.start_soon(partial(listen, pid, by_log=True))
            while len(kernel.init.runs) < 6:
                await anyio.lowlevel.checkpoint()
            await kernel.drain(0)
        assert heard == {
            back: "kernel_stopping", -back: "kernel_stopping",
            plain: "the kernel ended", -plain: "the end",
            guest: "kernel_stopping", -guest: "kernel_stopping",
        }  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("by", [Kill, partial(SendSignal, signal="KILL")])
async def test_who_was_killed_or_stopped_is_so_on_disk_when_the_call_returns(
    home: Path, by: Callable[..., Call[Answer]]
) -> None:
    """A kernel that is killed a moment later must not bring it back, or let it go on."""
    async with durable(home) as (kernel, client):
        for _ in range(5):
            ended = [(await client.admit()).pid for _ in range(3)]
            held = (await client.admit()).pid
            for pid in ended:
                await client.gate.call(by(pid=pid))
            await client.gate.call(SetBudget(pid=held, limits=Limits(calls=5)))
            await client.gate.call(Nice(pid=held, nice=7))
            await client.gate.call(Stop(pid=held))
            rows = {row.pid: row for row in await kernel.db.read(read_residents)}
            assert all(rows[pid].exit is not None for pid in ended)
            budget = rows[held].budget
            assert budget is not None
            told = budget.limits.calls, rows[held].nice, rows[held].is_stopped
            assert told == (5, 7, True)
            await client.gate.call(Cont(pid=held))
            rows = {row.pid: row for row in await kernel.db.read(read_residents)}
            assert not rows[held].is_stopped


@pytest.mark.anyio
async def test_who_is_told_what_cannot_be_asked_again_has_it_in_its_journal(
    home: Path, tmp_path: Path
) -> None:
    """A kernel that is killed a moment later must not tell a program that asks again that there is nobody to kill, or that nobody knows."""
    async with durable(home) as (kernel, client):
        await offer(kernel, "shop", echo, declared("order", Traits(effect="compensable")))
        context = await client.contexts.open(system="Be brief.")
        for number in range(5):
            await context.snapshot(f"talk-{number}")
            calls: tuple[Call[Answer], ...] = (
                build(Kill, pid=(await client.admit()).pid),
                build(ContextForget, name=f"talk-{number}"),
                build(FileMount, folder=str(tmp_path), path="/notes"),
                build(FileUmount, path="/notes"),
                build(ToolRun, name="shop/order", arguments={}),
            )
            for call in calls:
                await client.gate.call(call)
                *_, row = await kernel.db.read(lambda c: load(c, INIT_PID, texts=False))
                told = row.record.call, row.record.outcome
                assert told == (call.__struct_config__.tag, Outcome.DONE)


@pytest.mark.anyio
async def test_a_kill_needs_no_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with durable(home) as (kernel, client):
        guest = await client.admit()

        async def full(_: JournalDisk, *, is_urgent: bool) -> None:
            assert is_urgent
            raise DiskFailed("the disk is full", hint="make room")

        with monkeypatch.context() as patch:
            patch.setattr(JournalDisk, "flush", full)
            killed = await client.gate.call(Kill(pid=guest.pid))
        assert killed.value.pids == (guest.pid,)
        assert not kernel.table.get(guest.pid).is_alive
