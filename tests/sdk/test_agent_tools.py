import anyio
import pytest
from tests.sdk.serving import booted, calling, scripted

from aios.abi.types import Message, Role
from aios.errors import InvalidCall, NotFound, ProcessGone
from aios.sdk.agent import Agent
from aios.sdk.agent_tools import MAX_NAME_CHARS, model_name
from aios.sdk.client import Client
from aios.sdk.tools import tool

pytestmark = pytest.mark.anyio


@tool
def double(n: int) -> int:
    """Double a number."""
    return 2 * n


async def test_an_agent_uses_tools_of_the_kernel_beside_its_own() -> None:
    script = scripted(
        calling(
            ("calculator", "{'expression': '6 * 7',}"),
            ("double", '{"n": 4}'),
            ("desk__double", '{"n": 5}'),
            ("calculator", '{"expression": "1 / 0"}'),
        ),
        "done",
    )
    async with booted(script) as kernel:
        desk = Client(kernel.gate(kernel.admit("desk")[0].pid))
        client = Client(kernel.init_gate())
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                await tasks.start(desk.tools.serve, double)
                agent = Agent(client, tools=["calculator", double, "desk/double"])
                result = await agent.run("work")
                tasks.cancel_scope.cancel()
        texts = [m.text() for m in result.messages if m.role is Role.TOOL]
        assert texts[0].startswith("42\n[the arguments were repaired")
        assert texts[1:3] == ["8", "10"]
        assert "division by zero" in texts[3]


async def test_a_tool_that_is_not_there_is_told_before_the_model_thinks() -> None:
    async with booted() as kernel:
        agent = Agent(Client(kernel.init_gate()), tools=["nothing"])
        with pytest.raises(NotFound, match="calculator"):
            await agent.run("work")
        assert not agent.is_running


async def test_what_a_model_can_do_nothing_about_ends_the_run() -> None:
    @tool
    async def end() -> str:
        """End this very process."""
        await client.exit(0)
        return "ended"

    script = scripted(calling(("end", "{}")), calling(("calculator", '{"expression": "1"}')))
    async with booted(script) as kernel:
        client = Client(kernel.gate(kernel.admit("test")[0].pid))
        agent = Agent(client, tools=["calculator", end])
        with anyio.fail_after(30), pytest.raises(ProcessGone):
            await agent.run("work")
        assert isinstance(agent.messages[0], Message)


async def test_two_tools_of_one_name_are_refused() -> None:
    @tool(name="calculator")
    def other() -> int:
        """Another one."""
        return 1

    async with booted() as kernel:
        agent = Agent(Client(kernel.init_gate()), tools=[other, "calculator"])
        with pytest.raises(InvalidCall, match="two tools"):
            await agent.run("work")
        with pytest.raises(InvalidCall, match="is not a tool"):
            Agent(Client(kernel.init_gate()), tools=[len])  # type: ignore[list-item]  # that is the point


def test_names_for_models_are_short_plain_and_stay_apart() -> None:
    assert model_name("desk/double") == "desk__double"
    long = [model_name(f"{'x' * 100}/{n}") for n in range(3)]
    assert len(set(long)) == 3
    assert max(map(len, long)) <= MAX_NAME_CHARS
