import typing
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import msgspec
import pytest
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import UNASKED, OpenKernel
from tests.kernel.tools.offering import declared, idle, offer, run_tool

from aios.abi.access import Decision, Request
from aios.abi.branches import BranchCommit
from aios.abi.call import Answer, Call
from aios.abi.calls import (
    Admit,
    Chat,
    ExitSelf,
    GetPid,
    Info,
    Kill,
    Log,
    Logs,
    Nice,
    Ps,
    Shutdown,
    Spawn,
    Wait,
)
from aios.abi.every import AnyCall
from aios.abi.gate import Line
from aios.abi.tools import ToolJob, Traits
from aios.abi.types import Exit, Message, Pid, Role, ToolSpec
from aios.abi.undo import Undo
from aios.config import Config, Home, KernelConfig, SchedulerConfig
from aios.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    InvalidCall,
    KernelBug,
    NotFound,
    ProcessGone,
    ResourceExhausted,
)
from aios.kernel import handlers, syscall
from aios.kernel.gate import LocalGate
from aios.kernel.journal.records import Effect, Outcome
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import Run

pytestmark = pytest.mark.anyio


def test_every_call_has_an_entry_in_the_table() -> None:
    assert set(typing.get_args(AnyCall)) == set(syscall.TABLE)


JUDGED_WITHIN = (Undo, BranchCommit)
"""Of processes that may be gone: the undoer and the branches ask who reaches them."""


def test_an_entry_with_a_target_belongs_to_a_call_that_names_one() -> None:
    for call, entry in syscall.TABLE.items():
        fields = {field.name for field in msgspec.structs.fields(call)}
        if call not in JUDGED_WITHIN:
            assert entry.has_target == ("pid" in fields), call


async def test_an_unknown_call_is_refused(booted: OpenKernel) -> None:
    class Strange(Call[Answer], frozen=True):
        pass

    async with booted() as kernel:
        with pytest.raises(InvalidCall, match="Strange is no system call"):
            await kernel.init_gate().call(Strange())


async def test_a_call_that_takes_too_long_ends_with_its_deadline(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel:
            with pytest.raises(DeadlineExceeded, match=r"chat was not done within 0\.05 s"):
                await kernel.init_gate().call(chat(deadline_s=0.05))


async def test_a_deadline_holds_in_the_queue_too(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel, anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.init_gate().call, chat())
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(DeadlineExceeded, match=r"waited 0\.[0-9] s for turns"):
                await kernel.init_gate().call(chat(deadline_s=0.05))
            tasks.cancel_scope.cancel()


async def test_a_bug_in_a_handler_is_a_fault_of_that_call_alone(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: handlers.Services, __: Run, ___: Info) -> Answer:
        raise ZeroDivisionError("oops")

    entry = syscall.TABLE[Info]
    table = {**syscall.TABLE, Info: syscall.Entry(broken, entry.right)}
    monkeypatch.setattr(syscall, "TABLE", table)
    async with booted() as kernel:
        gate = kernel.init_gate()
        with pytest.raises(
            KernelBug, match="info failed inside the kernel: ZeroDivisionError: oops"
        ):
            await gate.call(Info())
        await gate.call(GetPid())
        outcomes = [record.outcome for record in kernel.journal.records(Pid(1))]
        assert outcomes == [Outcome.FAULT, Outcome.DONE]


@pytest.mark.parametrize("text", ["half \ud800 a pair"])
async def test_a_call_that_no_wire_carries_is_the_callers_mistake_and_leaks_nothing(
    booted: OpenKernel, text: str
) -> None:
    async with booted() as kernel:
        with pytest.raises(InvalidCall, match="cannot be encoded"):
            await kernel.init_gate().call(Log(text=text))
        huge = Chat(
            messages=(Message(Role.USER, "hi"),), tools=(ToolSpec("t", "", {"x": 1 << 70}),)
        )
        with pytest.raises(InvalidCall, match="cannot be encoded"):
            await kernel.init_gate().call(huge)
        assert not kernel.init.runs


async def test_calls_in_flight_are_bounded_per_process(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with (
            booted(slow_engine(), limits=KernelConfig(max_calls_per_process=2)) as kernel,
            anyio.create_task_group() as tasks,
        ):
            gate = kernel.gate(kernel.admit("greedy")[0].pid)
            for _ in range(2):
                tasks.start_soon(gate.call, chat())
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ResourceExhausted):
                await gate.call(GetPid())
            await kernel.init_gate().call(GetPid())
            tasks.cancel_scope.cancel()


async def test_the_queue_of_an_engine_is_bounded(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with (
            booted(slow_engine(), limits=KernelConfig(max_queue=2)) as kernel,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(3):
                tasks.start_soon(kernel.init_gate().call, chat())
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(
                ResourceExhausted, match="2 calls wait for engine:engine0"
            ) as caught:
                await kernel.init_gate().call(chat())
            assert caught.value.retry_after_s
            tasks.cancel_scope.cancel()


async def test_a_guest_sees_and_reaches_only_its_own_tree(booted: OpenKernel) -> None:
    async with booted() as kernel:
        alice, bob = kernel.admit("alice")[0], kernel.admit("bob")[0]
        gate = kernel.gate(alice.pid)
        assert [row.pid for row in (await gate.call(Ps())).value.processes] == [alice.pid]
        for call in (
            Wait(pid=bob.pid),
            Kill(pid=bob.pid),
            Logs(pid=bob.pid),
            Nice(pid=bob.pid, nice=5),
        ):
            with pytest.raises(AccessDenied):
                await gate.call(call)
        for denied in (Spawn(program="/bin"), Admit(), Shutdown()):
            with pytest.raises(AccessDenied, match="no right"):
                await gate.call(denied)


async def test_only_the_owner_makes_a_process_less_nice(booted: OpenKernel) -> None:
    async with booted() as kernel:
        process, _ = kernel.admit("worker")
        gate = kernel.gate(process.pid)
        assert (await gate.call(Nice(pid=process.pid, nice=5))).value.nice == 5
        with pytest.raises(AccessDenied, match="less nice"):
            await gate.call(Nice(pid=process.pid, nice=0))
        init = kernel.init_gate()
        assert (await init.call(Nice(pid=process.pid, nice=-5))).value.nice == -5
        await init.call(Kill(pid=process.pid))
        with pytest.raises(Conflict, match="has exited"):
            await init.call(Nice(pid=process.pid, nice=1))


async def test_exit_ends_the_process_with_its_result(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            process, _ = kernel.admit("worker")
            await kernel.gate(process.pid).call(ExitSelf(status=3, result="done"))
            waited = await kernel.init_gate().call(Wait(pid=process.pid))
            assert waited.value.exit == Exit(3, "", "done")
            with pytest.raises(ProcessGone):
                await kernel.gate(process.pid).call(GetPid())


async def test_the_results_in_one_answer_of_ps_share_room(booted: OpenKernel) -> None:
    long, longer = "\N{BUG}" * (1 << 19), "b" * (1 << 20)
    results = ["short", long, longer, longer]
    with anyio.fail_after(60):
        async with booted() as kernel:
            pids = []
            for result in results:
                process, _ = kernel.admit("worker")
                pids.append(process.pid)
                await kernel.gate(process.pid).call(ExitSelf(result=result))
            rows = (await kernel.init_gate().call(Ps(all=True))).value.processes
            told = {row.pid: row.exit.result for row in rows if row.exit is not None}
            shown = [told[pid] for pid in pids]
            assert sum(map(len, shown)) <= 1 << 20
            assert shown[0] == "short"
            for result, part in zip(results[1:], shown[1:], strict=True):
                assert len(part) == ((1 << 20) - 5) // 3
                assert result.startswith(part)
            for pid, result in zip(pids, results, strict=True):
                end = (await kernel.init_gate().call(Wait(pid=pid))).value.exit
                assert end.result == result


async def test_one_result_alone_is_whole_in_ps(booted: OpenKernel) -> None:
    result = "b" * (1 << 20)
    async with booted() as kernel:
        process, _ = kernel.admit("worker")
        await kernel.gate(process.pid).call(ExitSelf(result=result))
        rows = (await kernel.init_gate().call(Ps(all=True))).value.processes
        assert [row.exit for row in rows if row.exit is not None] == [Exit(0, "", result)]


async def test_init_cannot_exit(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with pytest.raises(Conflict, match="init cannot exit"):
            await kernel.init_gate().call(ExitSelf())


async def test_wait_without_a_pid_returns_each_child_once(booted: OpenKernel) -> None:
    def ends_after(event: anyio.Event, result: str) -> Callable[[LocalGate], Awaitable[str]]:
        async def body(_: LocalGate) -> str:
            await event.wait()
            return result

        return body

    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            events = [anyio.Event(), anyio.Event()]
            for number, event in enumerate(events):
                kernel.spawn_task(f"child{number}", ends_after(event, str(number)))
            results: list[str] = []

            async def wait_any() -> None:
                results.extend(
                    [(await kernel.init_gate().call(Wait())).value.exit.result for _ in events]
                )

            tasks.start_soon(wait_any)
            await anyio.wait_all_tasks_blocked()
            events[1].set()
            await anyio.wait_all_tasks_blocked()
            assert results == [] or results == ["1"]
            events[0].set()
        assert results == ["1", "0"]


async def test_wait_says_when_there_is_nobody_to_wait_for(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with pytest.raises(NotFound, match="no child"):
            await kernel.init_gate().call(Wait())
        with pytest.raises(NotFound, match="no process 77"):
            await kernel.init_gate().call(Wait(pid=Pid(77)))
        with pytest.raises(Conflict, match="its own end"):
            await kernel.init_gate().call(Wait(pid=Pid(1)))


async def test_a_log_can_be_followed_to_the_end_of_its_process(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            process, _ = kernel.admit("worker")
            gate = kernel.gate(process.pid)
            await gate.call(Log(text="one\ntwo"))
            texts: list[str] = []

            async def follow() -> None:
                async with kernel.init_gate().open_call(
                    Logs(pid=process.pid, follow=True, tail=1)
                ) as frames:
                    texts.extend([f.line.text async for f in frames if isinstance(f, Line)])
                    assert (await frames.result()).value.n_lines == 2

            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            await gate.call(Log(text="three"))
            await gate.call(ExitSelf())
        assert texts == ["two", "three"]


async def test_info_counts_what_runs(booted: OpenKernel) -> None:
    async with booted(slow_engine(n_slots=3)) as kernel:
        await kernel.init_gate().call(chat(max_tokens=1))
        info = (await kernel.init_gate().call(Info())).value
        assert (info.n_processes, info.n_calls, info.n_in_flight) == (1, 2, 1)
        assert (info.engines[0].model, info.engines[0].n_slots) == ("scripted", 3)


async def test_shutdown_tells_whoever_serves_the_kernel(booted: OpenKernel) -> None:
    async with booted() as kernel:
        await kernel.init_gate().call(Shutdown())
        assert kernel.stopping.is_set()


async def test_nice_ranks_calls_that_wait_at_once(booted: OpenKernel) -> None:
    engine = slow_engine(n_slots=1, n_tokens=50, token_delay_s=0.01)
    config = SchedulerConfig(policy="priority")
    with anyio.fail_after(30):
        async with booted(engine, scheduler=config) as kernel, anyio.create_task_group() as tasks:
            ended: list[str] = []

            async def talk(name: str) -> None:
                await kernel.gate(pids[name]).call(chat(max_tokens=20))
                ended.append(name)

            pids = {name: kernel.admit(name)[0].pid for name in ("first", "second", "third")}
            for name in pids:
                tasks.start_soon(talk, name)
            while not kernel.scheduler.statistics() or (
                kernel.scheduler.statistics()["engine:engine0"].n_queued < 2
            ):
                await anyio.sleep(0.001)
            await kernel.init_gate().call(Nice(pid=pids["second"], nice=10))
    assert ended == ["first", "third", "second"]


async def test_while_a_human_is_asked_the_effect_has_not_begun_for_any_who_look_at_the_disk(
    tmp_path: Path,
) -> None:
    asked, answered = anyio.Event(), anyio.Event()

    async def ask(_: Run, __: Request, ___: Decision) -> None:
        asked.set()
        await answered.wait()

    async def on_disk(kernel: Kernel, pid: Pid) -> list[tuple[str, Outcome, Effect]]:
        assert kernel.journal.disk is not None
        rows = await kernel.journal.disk.load(pid)
        found = [each.record for each in rows if each.record.call == "tool_run"]
        return [(each.call, each.outcome, each.effect) for each in found]

    carried = anyio.Event()

    async def carry(job: ToolJob) -> str:
        carried.set()
        await anyio.sleep_forever()
        return job.arguments

    home = Home(tmp_path)
    with anyio.fail_after(30):
        async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
            kernel.access.on_ask = ask
            await offer(kernel, "base", carry, declared("launch", Traits(effect="irreversible")))
            ann = kernel.spawn_task("ann", idle)
            gate = kernel.gate(ann)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_tool, gate, "base/launch")
                await asked.wait()
                assert await on_disk(kernel, ann) == []
                tasks.cancel_scope.cancel()
            cut_off = ("tool_run", Outcome.CANCELLED, Effect.PURE)
            assert await on_disk(kernel, ann) == [cut_off]
            answered.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_tool, gate, "base/launch")
                await carried.wait()
                begun = ("tool_run", Outcome.OPEN, Effect.IRREVERSIBLE)
                assert await on_disk(kernel, ann) == [cut_off, begun]
                tasks.cancel_scope.cancel()


async def test_who_gives_up_on_a_call_that_is_done_is_told_what_its_journal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done, and its outcome waits for the disk."""
    given_up = anyio.CancelScope()

    async def carry(job: ToolJob) -> str:
        return job.arguments

    async def flush_late(*, is_urgent: bool) -> None:
        (run,) = kernel.table.get(ann).runs.values()
        if run.record is not None and run.record.outcome is Outcome.DONE:
            given_up.cancel()
        await anyio.sleep(0.01)
        await flush(is_urgent=is_urgent)

    with anyio.fail_after(30):
        config, home = Config(access=UNASKED), Home(tmp_path)
        async with open_kernel(config, home, engines={}, is_durable=True) as kernel:
            await offer(kernel, "base", carry, declared("launch", Traits(effect="irreversible")))
            ann = kernel.spawn_task("ann", idle)
            flush, told = kernel.journal.flush, list[str]()
            monkeypatch.setattr(kernel.journal, "flush", flush_late)
            with given_up:
                told.append((await run_tool(kernel.gate(ann), "base/launch", x=1)).text)
            assert kernel.journal.disk is not None
            rows = await kernel.journal.disk.load(ann)
            assert [row.record.outcome for row in rows] == [Outcome.DONE]
            assert told == ['{"x":1}']
