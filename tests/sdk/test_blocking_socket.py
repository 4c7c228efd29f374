import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest
from tests.server.serving import Served, chat, serving, short_folder, slow_engine

from aios.abi.calls import GetPid, Kill, Stop, Wait
from aios.abi.gate import Fault, Token
from aios.abi.packets import Refusal, Welcome, pack
from aios.abi.types import Pid
from aios.engine.scripted import ScriptedEngine
from aios.errors import DeadlineExceeded, KernelUnreachable, NotFound, Unauthenticated
from aios.sdk.blocking_socket import BlockingUnixGate

pytestmark = pytest.mark.anyio


async def in_thread(served: Served, body: Callable[[BlockingUnixGate], None]) -> None:
    """Run a script against the kernel, as a thread of its own would."""

    def run() -> None:
        with BlockingUnixGate(served.path, served.token) as gate:
            body(gate)

    with anyio.fail_after(30):
        await anyio.to_thread.run_sync(run)


async def test_calls_answer_one_after_the_other_on_one_connection() -> None:
    def script(gate: BlockingUnixGate) -> None:
        for _ in range(20):
            assert gate.call(GetPid()).value.pid == 1
        assert len(gate._idle) == 1

    async with serving(http=False) as served:
        await in_thread(served, script)


async def test_frames_add_up_to_the_answer() -> None:
    def script(gate: BlockingUnixGate) -> None:
        with gate.open_call(chat("hello", max_tokens=20)) as frames:
            text = "".join(frame.text for frame in frames if isinstance(frame, Token))
            assert frames.result().value.message.content == text

    async with serving(ScriptedEngine(tokens_per_read=1), http=False) as served:
        await in_thread(served, script)


async def test_an_error_is_raised_as_its_class_and_the_gate_goes_on() -> None:
    def script(gate: BlockingUnixGate) -> None:
        with pytest.raises(NotFound):
            gate.call(Kill(pid=Pid(99)))
        assert gate.call(GetPid()).value.pid == 1

    async with serving(http=False) as served:
        await in_thread(served, script)


async def test_leaving_a_call_early_cancels_it_and_the_connection_is_used_again() -> None:
    async with serving(slow_engine(), http=False) as served:

        def script(gate: BlockingUnixGate) -> None:
            with gate.open_call(chat(max_tokens=None)) as frames:
                next(iter(frames))
            assert gate.call(GetPid()).value.pid == 1
            assert len(gate._idle) == 1

        await in_thread(served, script)
        assert served.kernel.info().n_in_flight == 0


async def test_an_exception_in_the_block_is_not_swallowed() -> None:
    def script(gate: BlockingUnixGate) -> None:
        with pytest.raises(ZeroDivisionError), gate.open_call(chat(max_tokens=None)):
            _ = 1 // 0

    async with serving(slow_engine(), http=False) as served:
        await in_thread(served, script)


async def test_many_threads_share_a_gate() -> None:
    def script(gate: BlockingUnixGate) -> None:
        with ThreadPoolExecutor(16) as pool:
            texts = pool.map(
                lambda n: gate.call(chat(f"number {n}", max_tokens=30)).value.message.text(),
                range(64),
            )
        assert all(f"number {number}." in text for number, text in enumerate(texts))

    async with serving(ScriptedEngine(n_slots=16), http=False) as served:
        await in_thread(served, script)


async def test_a_silent_kernel_is_given_up_after_the_timeout() -> None:
    async with serving(http=False) as served:
        guest, _ = served.kernel.admit("sleeper")

        def script() -> None:
            with BlockingUnixGate(served.path, served.token, timeout_s=0.1) as gate:
                with pytest.raises(DeadlineExceeded, match=r"silent for 0\.1 s"):
                    gate.call(Wait(pid=guest.pid))

        await anyio.to_thread.run_sync(script)


async def test_a_timeout_delays_no_call_that_is_answered() -> None:
    async with serving(http=False) as served:

        def script() -> None:
            with BlockingUnixGate(served.path, served.token, timeout_s=60) as gate:
                for _ in range(3):
                    gate.call(GetPid())
                assert len(gate._idle) == 1

        with anyio.fail_after(30):
            await anyio.to_thread.run_sync(script)


async def test_a_stopped_process_waits_and_goes_on() -> None:
    async with serving(http=False) as served:
        guest, token = served.kernel.admit("held")
        await served.kernel.init_gate().call(Stop(pid=guest.pid))

        def script() -> None:
            with BlockingUnixGate(served.path, token, timeout_s=0.2) as gate:
                with pytest.raises(DeadlineExceeded):
                    gate.call(GetPid())

        await anyio.to_thread.run_sync(script)


async def test_a_wrong_token_is_refused() -> None:
    def script(gate: BlockingUnixGate) -> None:
        wrong = BlockingUnixGate(gate._path, "aios_wrong")
        with pytest.raises(Unauthenticated):
            wrong.call(GetPid())

    async with serving(http=False) as served:
        await in_thread(served, script)


async def test_a_connection_that_the_kernel_closed_is_not_used_again() -> None:
    with short_folder() as folder:
        path = str(folder / "s")
        async with serving(http=False) as first:
            (folder / "s").symlink_to(first.path)
            gate = BlockingUnixGate(path, first.token)
            await anyio.to_thread.run_sync(gate.call, GetPid())
        with pytest.raises(KernelUnreachable, match="no kernel listens"):
            gate.call(GetPid())
        async with serving(http=False) as second:
            (folder / "s").unlink()
            (folder / "s").symlink_to(second.path)
            second.kernel.set_owner_token(first.token)
            assert (await anyio.to_thread.run_sync(gate.call, GetPid())).value.pid == 1
            gate.close()


async def test_a_forked_child_does_not_share_its_parents_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(gate: BlockingUnixGate) -> None:
        gate.call(GetPid())
        parents = gate._idle[0]
        monkeypatch.setattr(os, "getpid", lambda: -1)
        gate.call(GetPid())
        assert parents not in gate._idle
        parents.close()

    async with serving(http=False) as served:
        await in_thread(served, script)


def test_a_kernel_that_dies_in_mid_call_is_said_clearly() -> None:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        with ThreadPoolExecutor(1) as pool:

            def die() -> None:
                connection = listener.accept()[0]
                connection.recv(1000)
                connection.close()

            pool.submit(die)
            with pytest.raises(KernelUnreachable):
                BlockingUnixGate(str(folder / "s"), "t").call(GetPid())


def test_a_kernel_that_gives_a_connection_up_says_why() -> None:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        with ThreadPoolExecutor(1) as pool:

            def refuse() -> None:
                connection = listener.accept()[0]
                connection.recv(1000)
                connection.sendall(pack(Welcome(Pid(1))))
                connection.recv(1000)
                connection.sendall(pack(Refusal(Fault("kernel_stopping", "it ends now"))))
                connection.close()

            pool.submit(refuse)
            with pytest.raises(KernelUnreachable, match="it ends now"):
                BlockingUnixGate(str(folder / "s"), "t").call(GetPid())


def test_the_gate_imports_no_event_loop() -> None:
    program = (
        "import sys, aios.sdk.blocking_socket\n"
        "heavy = {'anyio', 'asyncio', 'httpx', 'starlette', 'aios.kernel'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own interpreter
