import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.budget import Limits, SetBudget
from aios.abi.calls import Chat, ChatAnswer, Complete, CompleteAnswer
from aios.abi.types import Message, Role, ToolCall
from aios.engine.base import Ability
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import BudgetExceeded
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

        with anyio.fail_after(5):
            for call in calls:
                before = await limit(10_000)
                answer = (await kernel.gate(pid).call(call)).value
                assert isinstance(answer, ChatAnswer | CompleteAnswer)
                spent = await limit(10_000) - before
                assert spent == answer.usage.prompt_tokens
                await limit(before + 2 * spent - 1)
                with pytest.raises(BudgetExceeded):
                    await kernel.gate(pid).call(call)
