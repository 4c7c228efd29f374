from math import ceil

import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.budget import BudgetInfo, Limits, SetBudget
from aios.abi.calls import Chat, ChatAnswer, Complete, CompleteAnswer, Embed
from aios.abi.types import Finish, Message, Role, ToolCall
from aios.engine.base import Ability, ChatPrompt
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import BudgetExceeded
from aios.kernel.cores import CoreConfig
from aios.kernel.gate import LocalGate

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


@pytest.mark.parametrize("is_tokenizer_here", [True, False])
async def test_the_worst_case_is_at_least_what_is_used(
    booted: OpenKernel, is_tokenizer_here: bool
) -> None:
    abilities = frozenset(Ability) - (frozenset() if is_tokenizer_here else {Ability.TOKENIZE})
    engine = ScriptedEngine(abilities=abilities, script=Script(answer_tokens=3))
    messages = (
        Message(Role.USER, "What is the time? ünïcödé"),
        Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "clock", '{"zone": "UTC"}'),)),
        Message(Role.TOOL, "12:00", tool_call_id="1"),
    )
    calls: tuple[Chat | Complete, ...] = (
        Chat(messages=messages, max_tokens=3),
        Complete(prompt="one two three", max_tokens=3),
    )
    async with booted(engine) as kernel:
        pid = kernel.spawn_task("agent", idle)

        async def limit(prompt_tokens: int) -> int:
            """Set the limit; returns what is spent."""
            limits = Limits(prompt_tokens=prompt_tokens)
            call = SetBudget(pid=pid, limits=limits, on_breach="fail")
            return (await kernel.init_gate().call(call)).value.spent.prompt_tokens

        with anyio.fail_after(30):
            for call in calls:
                before = await limit(10_000)
                answer = (await kernel.gate(pid).call(call)).value
                assert isinstance(answer, ChatAnswer | CompleteAnswer)
                spent = await limit(10_000) - before
                assert spent == answer.usage.prompt_tokens
                await limit(before + 2 * spent - 1)
                with pytest.raises(BudgetExceeded):
                    await kernel.gate(pid).call(call)


async def test_money_is_held_by_the_prices_of_the_engine_and_ends_an_output(
    booted: OpenKernel,
) -> None:
    engine = ScriptedEngine(script=Script(answer_tokens=100))
    async with booted(engine) as kernel:
        pid = kernel.spawn_task("agent", idle)
        core = kernel.cores.get("engine0")
        core.config = CoreConfig(prompt_price=0.5, completion_price=2.0)
        call = Chat(messages=(Message(Role.USER, "hello there"),))

        async def limit(money_micros: int | None) -> BudgetInfo:
            limits = Limits(money_micros=money_micros)
            set_budget = SetBudget(pid=pid, limits=limits, on_breach="fail")
            return (await kernel.init_gate().call(set_budget)).value

        with anyio.fail_after(30):
            whole = (await kernel.gate(pid).call(call)).value.usage
            price = ceil(0.5 * whole.prompt_tokens + 2 * whole.completion_tokens)
            assert (await limit(None)).spent.money_micros == price
            await limit(price + price // 2)
            cut = (await kernel.gate(pid).call(call)).value
            assert 0 < cut.usage.completion_tokens < whole.completion_tokens
            assert cut.finish is Finish.LENGTH
            about = await limit(price + price // 2)
            assert price + price // 2 - 2 <= about.spent.money_micros <= price + price // 2
            with pytest.raises(BudgetExceeded):
                await kernel.gate(pid).call(call)


class SlowCounter(ScriptedEngine):
    """Counts only when it is let; `waiting` is how many texts it was given to count at once."""

    waiting = 0

    def __init__(self) -> None:
        super().__init__(window_tokens=1 << 16)
        self.may_count = anyio.Event()

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        self.waiting += 1
        await self.may_count.wait()
        return await super().count_tokens(prompt)

    async def tokenize(self, text: str) -> tuple[int, ...]:
        self.waiting += 1
        await self.may_count.wait()
        return await super().tokenize(text)


@pytest.mark.parametrize(
    "call",
    [
        Chat((Message(Role.USER, "word " * 5000),), max_tokens=2),
        Complete("word " * 5000, max_tokens=2),
        Embed(("word " * 5000,)),
    ],
    ids=["chat", "complete", "embed"],
)
async def test_long_prompts_of_one_process_are_counted_for_its_budget_one_after_another(
    booted: OpenKernel, call: Chat | Complete | Embed
) -> None:
    engine = SlowCounter()
    with anyio.fail_after(60):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            pids = [kernel.admit(name)[0].pid for name in ("flooder", "other")]
            limits = Limits(prompt_tokens=10_000_000)
            for pid in pids:
                await kernel.init_gate().call(SetBudget(pid=pid, limits=limits))
            for pid in [pids[0]] * 10 + [pids[1]]:
                tasks.start_soon(kernel.gate(pid).call, call)
            await anyio.wait_all_tasks_blocked()
            assert engine.waiting == 2, "one for each"
            engine.may_count.set()
    assert engine.waiting == 11
