"""Calls of several owners that wait for the limits of one key; the times are small so that tests are."""

import anyio
import pytest
from msgspec.structs import replace
from tests.kernel.calls import chat
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import Chat, Cont, Embed, Stop
from aios.engine.base import Ability
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import DeadlineExceeded
from aios.kernel.kernel import Kernel
from aios.kernel.pacing import Pacing
from aios.kernel.process import Run
from aios.kernel.ratelimit import Rate

pytestmark = pytest.mark.anyio
SLOW = Rate("host", requests_per_minute=84)
"""12 at once, then 1.2 a second."""


def limit(kernel: Kernel, rate: Rate) -> None:
    """Let the scripted engine have the limits of a remote one."""
    core = kernel.cores.get("engine0")
    core.config = replace(core.config, rate=rate)


async def test_calls_wait_before_their_turn_seen_and_counted(booted: OpenKernel) -> None:
    engine = ScriptedEngine(n_slots=8, script=Script(answer_tokens=2))
    with anyio.fail_after(30):
        async with booted(engine) as kernel:
            limit(kernel, SLOW)
            process, _ = kernel.admit("ann")
            gate = kernel.gate(process.pid)
            for _ in range(12):
                await gate.call(chat(max_tokens=2))
            before_s = process.waited_s
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gate.call, chat(max_tokens=2))
                await anyio.wait_all_tasks_blocked()
                row = process.info(kernel.clock.now_s())
                assert row.activity == "chat waits for the rate limit of its model's key"
                assert row.state.value == "ready"
            assert process.waited_s - before_s > 0.03


async def test_a_stopped_process_gives_its_place_to_others(booted: OpenKernel) -> None:
    engine = ScriptedEngine(n_slots=8, script=Script(answer_tokens=2))
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            limit(kernel, SLOW)
            ann, _ = kernel.admit("ann")
            bob, _ = kernel.admit("bob")
            for _ in range(12):
                await kernel.gate(bob.pid).call(chat(max_tokens=2))
            done = anyio.Event()

            async def ask() -> None:
                await kernel.gate(ann.pid).call(chat(max_tokens=2))
                done.set()

            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await kernel.init_gate().call(Stop(pid=ann.pid))
            await kernel.gate(bob.pid).call(chat(max_tokens=2))
            assert not done.is_set()
            await kernel.init_gate().call(Cont(pid=ann.pid))
            await done.wait()


async def test_cont_of_who_waits_and_is_not_stopped_changes_nothing(booted: OpenKernel) -> None:
    engine = ScriptedEngine(n_slots=8, script=Script(answer_tokens=2))
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            limit(kernel, SLOW)
            ann, _ = kernel.admit("ann")
            for _ in range(12):
                await kernel.gate(ann.pid).call(chat(max_tokens=2))
            tasks.start_soon(kernel.gate(ann.pid).call, chat(max_tokens=2))
            await anyio.wait_all_tasks_blocked()
            for _ in range(2):
                assert ann.pid in (await kernel.init_gate().call(Cont(pid=ann.pid))).value.pids
            [pace] = kernel.models._pacing._paces.values()
            assert pace.limiter.n_waiting == 1


@pytest.mark.parametrize(
    "call", [chat(max_tokens=9, deadline_s=0.05), Embed(texts=("a b",), deadline_s=0.05)]
)
async def test_who_waits_for_a_slot_in_vain_takes_nothing_of_the_limit(
    booted: OpenKernel, call: Chat | Embed
) -> None:
    engine = ScriptedEngine(
        n_slots=1,
        abilities=frozenset(Ability) - {Ability.SUSPEND},
        script=Script(answer_tokens=1000, token_delay_s=0.01),
    )
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.init_gate().call, chat())
            await anyio.wait_all_tasks_blocked()
            limit(kernel, Rate("host", requests_per_minute=7, tokens_per_minute=70_000))
            with pytest.raises(DeadlineExceeded):
                await kernel.gate(kernel.admit("ann")[0].pid).call(call)
            [pace] = kernel.models._pacing._paces.values()
            assert pace.limiter._requests.level == 1.0  # as many as there may be
            assert pace.limiter._tokens.level == 10_000.0
            tasks.cancel_scope.cancel()


async def test_who_is_stopped_as_it_may_begin_and_then_cancelled_takes_nothing(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted(ScriptedEngine()) as kernel, anyio.create_task_group() as tasks:
            ann, _ = kernel.admit("ann")
            pacing = Pacing(kernel.clock, lambda _: 1.0)
            rate = Rate("host", requests_per_minute=7, tokens_per_minute=7000)  # one at once
            pace = pacing._get_pace(rate)

            async def ask() -> None:
                run = Run(ann, 1, "chat", anyio.CancelScope())
                async with pacing.permit(run, rate, 900) as permit:
                    permit.n_used = 900

            await ask()
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            requests, tokens = pace.limiter._requests, pace.limiter._tokens
            requests.level, tokens.level = 1.0, 1000.0
            pace.pump()
            assert pace.limiter.n_waiting == 0
            assert requests.level < 0.5
            await kernel.init_gate().call(Stop(pid=ann.pid))
            tasks.cancel_scope.cancel()
        assert requests.level == 1.0
        assert tokens.level == 1000.0
