import anyio
import pytest
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.sched import Sched, SetSched
from aios.config import SchedulerConfig
from aios.engine.base import Ability
from aios.engine.scripted import ABILITIES, ScriptedEngine
from aios.errors import AccessDenied

pytestmark = pytest.mark.anyio


async def test_everybody_may_look_and_only_the_owner_may_change(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine()) as kernel:
        guest, _ = kernel.admit("guest")
        for call in (SetSched(policy="rr"), SetSched(quantum_tokens=1), SetSched()):
            with pytest.raises(AccessDenied, match=r"scheduler\.set"):
                await kernel.gate(guest.pid).call(call)
        about = (await kernel.gate(guest.pid).call(Sched())).value
        assert about.policy == SchedulerConfig().policy
        assert kernel.scheduler.policy.name == about.policy


async def test_what_is_not_given_stays(booted: OpenKernel) -> None:
    async with booted(scheduler=SchedulerConfig(policy="fair", weights={"a": 2.0})) as kernel:
        gate = kernel.init_gate()
        await gate.call(SetSched(quantum_tokens=7))
        await gate.call(SetSched(weights={"b": 3.0}))
        about = (await gate.call(SetSched(weights={"a": 1.0}))).value
        assert (about.policy, about.quantum_tokens, about.weights) == ("fair", 7, {"b": 3.0})
        assert (await gate.call(SetSched(policy="rr"))).value.policy == "rr"
        assert kernel.scheduler.policy.name == "rr"
        assert (await gate.call(Sched())).value.weights == {"b": 3.0}


async def test_a_new_policy_acts_on_calls_that_wait(booted: OpenKernel) -> None:
    engine = slow_engine(n_slots=1, n_tokens=40, token_delay_s=0.01)
    with anyio.fail_after(30):
        async with booted(engine, scheduler=SchedulerConfig(policy="fifo")) as kernel:
            ended: list[str] = []
            gate = kernel.init_gate()

            async def talk(name: str, text: str) -> None:
                pid = kernel.admit(name)[0].pid
                await kernel.gate(pid).call(chat(text, max_tokens=20))
                ended.append(name)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(talk, "first", "word " * 300)
                n_queued, n_taken = 0, 0
                while n_taken < 1:
                    await anyio.sleep(0.001)
                    n_taken = sum(lane.n_granted for lane in (await gate.call(Sched())).value.lanes)
                tasks.start_soon(talk, "long", "word " * 300)
                await anyio.sleep(0.002)
                tasks.start_soon(talk, "short", "hi")
                while n_queued < 2:
                    await anyio.sleep(0.001)
                    n_queued = sum(each.n_queued for each in (await gate.call(Sched())).value.lanes)
                (lane,) = (await gate.call(Sched())).value.lanes
                assert lane.longest_wait_s > 0
                assert (lane.capacity, lane.n_granted, lane.is_preemptible) == (1, 1, True)
                await gate.call(SetSched(policy="mlfq"))
    assert ended == ["first", "short", "long"]


async def test_an_engine_that_cannot_suspend_says_so(booted: OpenKernel) -> None:
    engine = ScriptedEngine(abilities=ABILITIES - {Ability.SUSPEND})
    async with booted(engine) as kernel:
        await kernel.init_gate().call(chat(max_tokens=1))
        (lane,) = (await kernel.init_gate().call(Sched())).value.lanes
        assert not lane.is_preemptible
