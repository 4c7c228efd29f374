import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import Cont, CountTokens, GetPid
from aios.abi.mail import Receive
from aios.abi.tools import ToolList, ToolRun
from aios.abi.types import Message, Role
from aios.config import KernelConfig
from aios.errors import NoProgress, NotFound
from aios.kernel.brake import Repeats
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.process import Process

PAUSE = KernelConfig(max_repeats=5)
FAIL = KernelConfig(max_repeats=5, on_repeat="fail")


def guest(kernel: Kernel) -> tuple[Process, LocalGate]:
    process, _ = kernel.admit("guest")
    return process, kernel.gate(process.pid)


def braked(kernel: Kernel) -> int:
    return sum(getattr(each, "what", "") == "braked" for each in kernel.journal.events)


@given(st.lists(st.sampled_from([b"x", b"y"]), max_size=30))
def test_what_is_counted_is_the_equal_answers_at_the_end(answers: list[bytes]) -> None:
    repeats = Repeats(b"call")
    for answer in answers:
        repeats.add(answer)
    n_equal = 0
    for answer in reversed(answers):
        if answer != answers[-1]:
            break
        n_equal += 1
    is_all = n_equal == len(answers)  # the first answer is not known, and is taken for equal
    assert repeats.n == n_equal + is_all


@pytest.mark.anyio
async def test_who_repeats_itself_in_vain_is_held_until_it_is_let_go_on(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with (
            booted(slow_engine(n_tokens=2, token_delay_s=0), limits=PAUSE) as kernel,
            anyio.create_task_group() as tasks,
        ):
            process, gate = guest(kernel)
            n_done = 0

            async def loop() -> None:
                nonlocal n_done
                for _ in range(8):
                    await gate.call(chat())
                    n_done += 1

            tasks.start_soon(loop)
            while not process.is_stopped:
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            assert (n_done, braked(kernel)) == (5, 1)
            assert "5 times in a row" in process.log.read(0)[0][-1].text
            assert process.info(0.0).activity == "chat in a loop"
            await kernel.init_gate().call(Cont(pid=process.pid))
            while n_done < 8:
                await anyio.sleep(0.001)


@pytest.mark.anyio
async def test_a_call_that_repeats_in_vain_fails_if_asked_until_another_is_made(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=2, token_delay_s=0), limits=FAIL) as kernel:
            _, gate = guest(kernel)
            for _ in range(5):
                await gate.call(chat())
            for _ in range(2):
                with pytest.raises(NoProgress, match="chat was asked 5 times"):
                    await gate.call(chat())
            await gate.call(chat("something else"))
            await gate.call(chat())


@pytest.mark.anyio
async def test_a_tool_that_fails_alike_counts_whatever_the_model_is_asked_between(
    booted: OpenKernel,
) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=2, token_delay_s=0), limits=FAIL) as kernel:
            _, gate = guest(kernel)
            for turn in range(5):
                await gate.call(chat(f"turn {turn}"))
                with pytest.raises(NotFound):
                    await gate.call(ToolRun(name="absent"))
            with pytest.raises(NoProgress, match="tool_run"):
                await gate.call(ToolRun(name="absent"))


@pytest.mark.anyio
async def test_cheap_calls_calls_side_by_side_and_the_owners_are_no_loop(
    booted: OpenKernel,
) -> None:
    engine = slow_engine(n_slots=4, n_tokens=2, token_delay_s=0.001)
    with anyio.fail_after(30):
        async with booted(engine, limits=FAIL) as kernel:
            _, gate = guest(kernel)
            for _ in range(20):
                await gate.call(GetPid())
                await gate.call(ToolList())
                await gate.call(CountTokens(messages=(Message(Role.USER, "hello"),)))
                await kernel.init_gate().call(chat())
            for _ in range(4):
                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(gate.call, chat())
            assert braked(kernel) == 0


@pytest.mark.anyio
async def test_who_waits_for_mail_meanwhile_can_be_in_a_loop(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with (
            booted(slow_engine(n_tokens=2, token_delay_s=0), limits=FAIL) as kernel,
            anyio.create_task_group() as tasks,
        ):
            _, gate = guest(kernel)
            tasks.start_soon(gate.call, Receive())
            await anyio.wait_all_tasks_blocked()
            for _ in range(5):
                await gate.call(chat())
            with pytest.raises(NoProgress):
                await gate.call(chat())
            tasks.cancel_scope.cancel()
