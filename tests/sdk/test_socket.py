import asyncio  # noqa: TID251 - its own way to cancel is tested
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import anyio
import anyio.lowlevel
import pytest
from tests.server.serving import chat, serving, short_folder, slow_engine, until_idle, until_running

from aios.abi.calls import GetPid, Info, Kill, Log, Logs, Wait
from aios.abi.every import AnyCall
from aios.abi.gate import Fault, Line, Result, Token
from aios.abi.packets import Cancel, Hello, Reply, Request, Welcome, pack
from aios.abi.types import Pid
from aios.abi.wire import unpack_to_server
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, KernelUnreachable, NotFound, Unauthenticated
from aios.sdk import socket as socket_module
from aios.sdk.client import Client
from aios.sdk.packets import PacketBuffer
from aios.sdk.socket import UnixGate
from aios.sdk.stream import UnixStream

pytestmark = pytest.mark.anyio


async def test_a_call_comes_back_with_its_answer() -> None:
    async with serving(http=False) as served, UnixGate.connect(served.path, served.token) as gate:
        assert (await gate.call(GetPid())).value.pid == gate.pid == 1
        answer = (await gate.call(chat("hello"))).value
        assert answer.usage.completion_tokens == 8


async def test_frames_come_in_order_and_add_up_to_the_answer() -> None:
    engine = ScriptedEngine(tokens_per_read=1)
    async with serving(engine, http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            async with gate.open_call(chat("hello", max_tokens=20)) as frames:
                read = [frame async for frame in frames]
                result = await frames.result()
    assert all(isinstance(frame, Token) for frame in read)
    text = "".join(frame.text for frame in read if isinstance(frame, Token))
    assert text == result.value.message.content


async def test_an_error_reaches_its_caller_bare() -> None:
    async with serving(http=False) as served, UnixGate.connect(served.path, served.token) as gate:
        with pytest.raises(NotFound, match="no process 99"):
            await gate.call(Kill(pid=Pid(99)))
        async with gate.open_call(Kill(pid=Pid(99))) as frames:
            with pytest.raises(NotFound):
                await anext(aiter(frames))


@pytest.mark.no_cover
async def test_hundreds_of_calls_share_one_connection() -> None:
    answers: dict[int, str] = {}

    async def ask(gate: UnixGate, number: int) -> None:
        answers[number] = (
            await gate.call(chat(f"number {number}", max_tokens=30))
        ).value.message.text()

    async with serving(ScriptedEngine(n_slots=16), http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    for number in range(200):
                        tasks.start_soon(ask, gate, number)
    assert len(answers) == 200
    assert all(f"number {number}." in text for number, text in answers.items())


async def test_leaving_a_call_early_cancels_it() -> None:
    async with serving(slow_engine(), http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            with anyio.fail_after(30):
                async with gate.open_call(chat(max_tokens=None)) as frames:
                    await anext(aiter(frames))
                assert served.kernel.info().n_in_flight == 0, "it has ended by now"
                assert (await gate.call(GetPid())).value.pid == 1


async def test_cancelling_a_waiting_caller_cancels_its_call_and_no_other() -> None:
    async with serving(slow_engine(n_tokens=300), http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            results: list[Result[object]] = []  # type: ignore[type-var] # any answer will do

            async def ask() -> None:
                results.append(await gate.call(chat("other", max_tokens=300)))  # type: ignore[arg-type] # see above

            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    await until_running(served.kernel)
                    with anyio.move_on_after(0.05) as scope:
                        await gate.call(chat("cancelled", max_tokens=None))
                    assert scope.cancelled_caught
            assert len(results) == 1
            await until_idle(served.kernel)


async def test_a_caller_that_reads_for_others_may_go_away() -> None:
    """The first to wait reads the socket for all; when it is cancelled somebody else must take over."""
    async with serving(slow_engine(n_tokens=200), http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            done: list[int] = []

            async def ask(number: int) -> None:
                await gate.call(chat(str(number), max_tokens=200))
                done.append(number)

            with anyio.fail_after(30):
                async with anyio.create_task_group() as others, anyio.create_task_group() as leader:
                    leader.start_soon(ask, 0)
                    await until_running(served.kernel)
                    others.start_soon(ask, 1)
                    others.start_soon(ask, 2)
                    await until_running(served.kernel, 3)
                    leader.cancel_scope.cancel()
            assert sorted(done) == [1, 2]


@asynccontextmanager
async def fake_kernel(answer: Callable[[Request[AnyCall]], bytes | None]) -> AsyncIterator[str]:
    """Something at a socket that greets like a kernel; it closes when there is no answer."""

    async def attend(stream: UnixStream) -> None:
        buffer = PacketBuffer()
        with closing(stream):
            while data := await stream.receive():
                for packet in map(unpack_to_server, buffer.feed(data)):
                    reply = pack(Welcome(Pid(1))) if isinstance(packet, Hello) else b""
                    if isinstance(packet, Request):
                        said = answer(packet)
                        if said is None:
                            return
                        reply = said
                    await stream.send(reply)

    async def accept(listener: socket.socket) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.wait_readable(listener)
                tasks.start_soon(attend, UnixStream(listener.accept()[0]))

    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept, listener)
            yield str(folder / "s")
            tasks.cancel_scope.cancel()


async def test_a_large_packet_that_asyncio_itself_cancels_in_the_middle_is_sent_whole() -> None:
    ours, theirs = map(UnixStream, socket.socketpair())
    gate = UnixGate(ours, Pid(1), PacketBuffer())
    heard: list[tuple[type, int]] = []

    async def answer() -> None:
        buffer = PacketBuffer()
        while data := await theirs.receive():
            for packet in map(unpack_to_server, buffer.feed(data)):
                assert isinstance(packet, Request | Cancel)
                heard.append((type(packet), packet.id))
                if heard[-1] != (Request, 1):
                    await theirs.send(
                        pack(Reply(packet.id, Fault("cancelled", "it was cancelled")))
                    )

    with anyio.fail_after(30), closing(theirs):
        large = asyncio.create_task(gate.call(chat("word " * 1_000_000)))
        await anyio.wait_all_tasks_blocked()
        large.cancel()
        await asyncio.sleep(0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            with pytest.raises(AiosError, match="it was cancelled"):
                await gate.call(GetPid())
            with pytest.raises(asyncio.CancelledError):
                await large
            await gate.aclose()
    assert sorted(heard, key=str) == [(Cancel, 1), (Request, 1), (Request, 2)]


async def test_who_reads_hears_that_the_kernel_takes_no_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket_module, "SEND_TIMEOUT_S", 0.05)
    ours, theirs = socket.socketpair()
    gate = UnixGate(UnixStream(ours), Pid(1), PacketBuffer())

    async def ask(text: str) -> None:
        with pytest.raises(KernelUnreachable, match="took no bytes"):
            await gate.call(chat(text))

    with anyio.fail_after(30), closing(theirs):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "short")
            await anyio.wait_all_tasks_blocked()
            await ask("word " * 1_000_000)
        await gate.aclose()


async def test_every_waiter_hears_that_the_kernel_is_gone() -> None:
    errors: list[AiosError] = []

    async def ask(gate: UnixGate) -> None:
        try:
            await gate.call(Wait(pid=Pid(2)))
        except AiosError as error:
            errors.append(error)

    def close_at_the_fifth(request: Request[AnyCall]) -> bytes | None:
        return None if request.id == 5 else b""

    with anyio.fail_after(30):
        async with fake_kernel(close_at_the_fifth) as path, UnixGate.connect(path, "t") as gate:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(ask, gate)
            with pytest.raises(KernelUnreachable):
                await gate.call(GetPid())
    assert [type(error) for error in errors] == [KernelUnreachable] * 5


async def test_a_wrong_token_is_refused_with_a_reason() -> None:
    async with serving(http=False) as served:
        with pytest.raises(Unauthenticated, match="token"):
            await UnixGate.open(served.path, "aios_wrong")


@pytest.mark.parametrize("kind", ["absent", "dead", "not-a-socket"])
async def test_no_kernel_at_the_path_is_said_clearly(kind: str) -> None:
    with short_folder() as folder:
        path = folder / "s"
        if kind == "dead":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        elif kind == "not-a-socket":
            path.write_text("")
        with pytest.raises(KernelUnreachable, match="no kernel listens"):
            await UnixGate.open(str(path), "t")


async def test_the_tokens_of_another_process_speak_for_that_process() -> None:
    async with serving(http=False) as served:
        guest, token = served.kernel.admit("guest")
        async with UnixGate.connect(served.path, token) as gate:
            assert (await gate.call(GetPid())).value.pid == guest.pid


async def test_logs_arrive_line_by_line() -> None:
    async with serving(http=False) as served, UnixGate.connect(served.path, served.token) as gate:
        await gate.call(Log(text="\n".join(f"line {number}" for number in range(3_000))))
        async with gate.open_call(Logs(pid=Pid(1))) as frames:
            lines = [frame.line.text async for frame in frames if isinstance(frame, Line)]
            assert (await frames.result()).value.n_lines == 3_000
    assert lines == [f"line {number}" for number in range(3_000)]


@pytest.mark.no_cover
async def test_a_large_prompt_and_a_large_answer_pass() -> None:
    text = "word " * 400_000
    engine = ScriptedEngine(script=Script(replies=("x" * 3_000_000,)), window_tokens=1_000_000)
    async with serving(engine, http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            with anyio.fail_after(30):
                answer = (await gate.call(chat(text, max_tokens=None))).value
            assert len(answer.message.text()) == 3_000_000
            assert (await gate.call(Info())).value.n_in_flight == 1


async def test_replies_that_nobody_waits_for_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_module, "CANCEL_GRACE_S", 0.05)

    def answer_another(request: Request[AnyCall]) -> bytes:
        return pack(Reply(request.id + 1_000, Token("?")))

    with anyio.fail_after(30):
        async with fake_kernel(answer_another) as path, UnixGate.connect(path, "t") as gate:
            with anyio.move_on_after(0.1) as scope:
                await gate.call(GetPid())
            assert scope.cancelled_caught


@pytest.mark.parametrize("reply", [b"\xff\xff\xff\xff", b"\0\0\0\1x", pack(Welcome(Pid(1)))])
async def test_a_kernel_that_talks_nonsense_is_given_up(reply: bytes) -> None:
    async with fake_kernel(lambda _: reply) as path, UnixGate.connect(path, "t") as gate:
        with anyio.fail_after(30), pytest.raises(KernelUnreachable):
            await gate.call(GetPid())


def test_the_gate_imports_nothing_heavy() -> None:
    program = (
        "import sys, aios.sdk.socket\n"
        "heavy = {'httpx', 'starlette', 'rich', 'uvicorn', 'aios.kernel', 'typer'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own interpreter


async def test_a_letter_that_came_as_its_reader_gave_up_is_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal says that it was taken: a program that is brought back is told of it, and must have known it."""
    async with serving(http=False) as served:
        reader, token = served.kernel.admit("reader")

        async def keep(
            *_: object, **__: object
        ) -> None:  # as a slow disk: what is written is not cancelled
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.3)

        await Client(served.kernel.init_gate()).mail.send(reader.pid, "hello")
        monkeypatch.setattr(served.kernel.post, "_take_letters", keep)
        async with UnixGate.connect(served.path, token) as gate:
            with anyio.move_on_after(0.1) as scope:
                letter = await Client(gate).mail.receive()
                assert letter.body == "hello"
                await anyio.lowlevel.checkpoint()
            assert scope.cancelled_caught, "behind the call its scope is heeded"
            assert letter.body == "hello"
        assert not served.kernel.table.get(reader.pid).runs
