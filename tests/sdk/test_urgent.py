"""Urgent letters between two calls, also for programs that run again, and for agents."""

from pathlib import Path

import pytest
from anyio import to_thread
from anyio.from_thread import BlockingPortal
from tests.kernel.conftest import OpenKernel, booted
from tests.kernel.mail.test_post import agent, idle

from aios.abi.mail import Letter
from aios.abi.types import Role
from aios.config import Config, Home
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied
from aios.kernel.kernel import open_kernel
from aios.kernel.replay import Replay
from aios.sdk import blocking
from aios.sdk.agent import Agent
from aios.sdk.client import Client
from aios.sdk.mail import Mail
from aios.sdk.portal import PortalGate
from aios.sdk.tools import tool
from aios.sdk.urgent import attentive, attentive_blocking

__all__ = ("booted",)

pytestmark = pytest.mark.anyio


async def test_urgent_letters_are_heard_once_each_before_the_next_call_returns(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        (_, ann_mail), (bob, _) = agent(kernel, "ann"), agent(kernel, "bob")
        heard: list[str] = []
        plain = Client(kernel.gate(bob))

        async def hear(letter: Letter) -> None:
            await client.getpid()  # a call within brings no letters in the middle of it
            heard.append(letter.body)

        client = attentive(plain, hear)
        await ann_mail.send(bob, "not urgent")
        await client.getpid()
        assert heard == []
        for body in ("1", "2"):
            await ann_mail.send(bob, body, is_urgent=True)
        await client.getpid()
        assert heard == ["1", "2"]
        await client.getpid()
        assert heard == ["1", "2"]
        assert (await client.mail.receive()).body == "not urgent"


async def test_what_is_heard_can_end_the_work(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine()) as kernel:
        (_, ann_mail), (bob, _) = agent(kernel, "ann"), agent(kernel, "bob")

        async def hear(letter: Letter) -> None:
            raise AccessDenied(letter.body)

        client = attentive(Client(kernel.gate(bob)), hear)
        await ann_mail.send(bob, "stop", is_urgent=True)
        async with client.stream_chat("hello", max_tokens=4) as stream:
            assert "".join([text async for text in stream])
            with pytest.raises(AccessDenied, match="stop"):
                await stream.reply()


async def test_who_may_not_use_mail_gets_the_answers_of_its_calls_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "policies").mkdir()
    ban = 'forbid(principal == Agent::"bob", action == Action::"mail.use", resource);'
    (tmp_path / "policies" / "mine.cedar").write_text(ban)
    heard: list[str] = []

    async def hear(letter: Letter) -> None:
        heard.append(letter.body)

    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel, BlockingPortal() as own:
        bob = kernel.spawn_task("bob", idle)
        await Mail(kernel.init_gate()).send(bob, "hello", is_urgent=True)
        gate = kernel.gate(bob)
        with pytest.raises(AccessDenied):
            await Mail(gate).take()
        client = attentive(Client(gate), hear)
        assert (await client.getpid()).pid == bob
        plain = attentive_blocking(
            blocking.Client(PortalGate(own, gate)), lambda letter: heard.append(letter.body)
        )
        assert (await to_thread.run_sync(plain.getpid)).pid == bob
        assert heard == []
        assert kernel.post.count_urgent(kernel.table.get(bob)) == 1


async def test_a_program_that_runs_again_hears_the_same_at_the_same_places(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        pid = kernel.spawn_task("bob", idle)
        owner = Mail(kernel.init_gate())
        is_first = True

        async def live() -> list[str]:
            events: list[str] = []

            async def hear(letter: Letter) -> None:
                events.append(letter.body)

            client = attentive(Client(kernel.gate(pid)), hear)
            for step in range(6):
                if step in {2, 3} and is_first:
                    await owner.send(pid, f"urgent {step}", is_urgent=True)
                if step % 2:
                    await client.mail.send(
                        1, f"note {step}"
                    )  # its answer is sealed with its effect
                else:
                    await client.getpid()
                events.append(f"step {step}")
            return events

        first, is_first = await live(), False
        assert "urgent 2" in first
        assert "urgent 3" in first
        disk = kernel.journal.disk
        assert disk is not None
        replay = Replay(await disk.load(pid))
        kernel.table.get(pid).replay = replay
        assert await live() == first
        assert replay.n_left == 0


async def test_an_agent_tells_its_model_of_urgent_letters(booted: OpenKernel) -> None:
    engine = ScriptedEngine(script=Script(answer_tokens=6))
    async with booted(engine) as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")

        @tool
        async def look() -> str:
            """Look around."""
            await ann_mail.send(bob, "the bridge is closed", is_urgent=True)
            return "a bridge"

        walker = Agent(Client(kernel.gate(bob)), tools=[look])
        result = await walker.run("call look {}")
        said = [(each.role, each.text()) for each in result.messages]
        place = next(i for i, (_, text) in enumerate(said) if "the bridge is closed" in text)
        assert said[place][0] is Role.USER
        assert "from ann" in said[place][1]
        assert said[place - 1][0] in {Role.TOOL, Role.ASSISTANT}
        assert said[-1][0] is Role.ASSISTANT
        walker.transcript.check_invariants()
        deaf = Agent(Client(kernel.gate(bob)), hears_urgent=False)
        await ann_mail.send(bob, "again", is_urgent=True)
        await deaf.run("go on")
        assert (await bob_mail.receive()).body == "again"
