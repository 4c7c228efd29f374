from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from aios.abi.calls import Chat, ChatAnswer
from aios.abi.gate import Frames, Token
from aios.abi.types import Message, Pid, Role
from aios.config import Config, Home
from aios.engine.base import ChatPrompt, Engine, Job
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel.clock import SystemClock
from aios.kernel.cores import Core, CoreConfig
from aios.kernel.journal.streams import PIECE_S, digest_of
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

N_TOKENS = 60
CALL = Chat(messages=(Message(Role.USER, "Tell me of the sea."),), max_tokens=2 * N_TOKENS)


class FastClock(SystemClock):
    """A clock on which a piece is due every few milliseconds."""

    def now_s(self) -> float:
        return 200 * super().now_s()


def engine(delay_s: float) -> ScriptedEngine:
    script = Script(token_delay_s=delay_s, answer_tokens=N_TOKENS)
    return ScriptedEngine(script=script)


def n_pieces(kernel: Kernel) -> int:
    return int(kernel.db.read_nowait(lambda c: c.execute("SELECT count(*) FROM stream_pieces").get))


def started(engine: Engine) -> Callable[[], Awaitable[Engine]]:
    async def start() -> Engine:
        await engine.start()
        return engine

    return start


async def listen(frames: Frames[ChatAnswer], said: list[str]) -> None:
    async for frame in frames:
        assert isinstance(frame, Token)
        said.append(frame.text)


async def cut_off(home: Home) -> tuple[Pid, str]:
    """Let a kernel end in the middle of a generation. Returns: whose it was, and what came of it."""
    said: list[str] = []
    async with open_kernel(
        Config(), home, engines={"a": engine(0.004)}, clock=FastClock(), is_durable=True
    ) as kernel:
        pid = kernel.admit("eve")[0].pid

        async def ask() -> None:
            async with kernel.gate(pid).open_call(CALL) as frames:
                with pytest.raises(AiosError):
                    await listen(frames, said)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while len("".join(said).split()) < N_TOKENS // 4:
                    await anyio.sleep(0.002)
                await kernel.drain(0)
    return pid, "".join(said)


async def test_a_generation_that_was_cut_off_goes_on_behind_what_is_journalled(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    pid, said = await cut_off(home)
    second = engine(0.0)
    async with open_kernel(
        Config(), home, engines={"a": second}, clock=FastClock(), is_durable=True
    ) as kernel:
        assert n_pieces(kernel) > 0
        async with kernel.gate(pid).open_call(CALL) as frames:
            tokens = [frame async for frame in frames if isinstance(frame, Token)]
            result = await frames.result()
        told = "".join(each.text for each in tokens)
        assert told == result.value.message.text()
        assert told.startswith(said), "the client has seen that already"
        assert result.value.usage.completion_tokens == N_TOKENS
        assert 0 < second.n_generated_tokens < N_TOKENS - 1, "the model said less anew"
        assert kernel.table.get(pid).usage.completion_tokens >= N_TOKENS
        assert kernel.journal.disk is not None
        await kernel.journal.disk.flush()
        assert n_pieces(kernel) == 0
        assert (await Client(kernel.gate(pid)).chat("Something else.", max_tokens=4)).text


async def test_what_an_engine_said_that_failed_is_no_part_of_what_is_gone_on_from(
    tmp_path: Path,
) -> None:
    """The one that failed was of a model that stutters; nothing of it was journalled when the other one began."""
    home = Home(tmp_path)
    stutter = Script(answer=lambda _: "um " * N_TOKENS, fail_after_tokens=10)
    first = ScriptedEngine(model="other", script=stutter)
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        kernel.add_engine(Core("a", "scripted", started(first), config=CoreConfig(fallback=("b",))))
        kernel.add_engine(Core("b", "scripted", started(engine(0.02))))
        pid = kernel.admit("eve")[0].pid

        async def ask() -> None:
            with pytest.raises(AiosError):
                await kernel.gate(pid).call(CALL)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while not n_pieces(kernel):
                    await anyio.sleep(0.01)
                await kernel.drain(0)
    second = engine(0.0)
    async with open_kernel(Config(), home, engines={"b": second}, is_durable=True) as kernel:
        answer = (await kernel.gate(pid).call(CALL)).value
    assert "um" not in answer.message.text().split()
    assert answer.usage.completion_tokens == N_TOKENS
    assert 0 < second.n_generated_tokens < N_TOKENS, "what the other one said was kept"


async def test_what_is_asked_otherwise_begins_anew_and_the_dead_leave_no_pieces(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    pid, _ = await cut_off(home)
    async with open_kernel(
        Config(), home, engines={"a": engine(0.0)}, clock=FastClock(), is_durable=True
    ) as kernel:
        async with kernel.gate(pid).open_call(
            Chat(messages=CALL.messages, max_tokens=N_TOKENS)
        ) as frames:
            result = await frames.result()
        assert result.value.usage.completion_tokens > 0
        await kernel.signals.kill(kernel.table.get(pid), reason="test")
    async with open_kernel(
        Config(), home, engines={"a": engine(0.0)}, clock=FastClock(), is_durable=True
    ) as kernel:
        assert kernel.journal.disk is not None
        await kernel.journal.disk.flush()
        assert n_pieces(kernel) == 0


async def test_watchers_hear_what_a_model_says_if_they_ask_for_it(tmp_path: Path) -> None:
    async with open_kernel(
        Config(), Home(tmp_path), engines={"a": engine(0.001)}, clock=FastClock(), is_durable=True
    ) as kernel:
        client = Client(kernel.init_gate())
        number = (await client.journal.events(after=0, is_waiting=False)).last
        answer = (await client.chat("Tell me of the sea.", max_tokens=2 * N_TOKENS)).text
        plain = await client.journal.events(after=number, is_waiting=False)
        assert "piece" not in {event.what for event in plain.events}
        events = (await client.journal.events(after=number, has_text=True, is_waiting=False)).events
        pieces = [event.detail for event in events if event.what == "piece"]
        assert len(pieces) > 1
        assert "".join(pieces) == answer
    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        found = await Client(kernel.init_gate()).journal.events(after=number)
        assert found.is_restarted
        assert found.n_missed == 0
        assert number < found.last


def test_a_job_is_known_by_what_is_asked_not_by_its_urgency() -> None:
    job = Job(ChatPrompt(CALL.messages), max_tokens=4)
    other = Job(ChatPrompt(CALL.messages), max_tokens=4, is_urgent=True)
    assert digest_of(job) == digest_of(other)
    assert digest_of(job) != digest_of(Job(ChatPrompt(CALL.messages), max_tokens=5))
    assert PIECE_S > 0
