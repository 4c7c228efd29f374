import inspect
import os
import threading
from functools import partial

import anyio
import anyio.abc
import pytest
from anyio import to_thread, wait_all_tasks_blocked
from tests.sdk.serving import booted, served

from aios.abi.types import Pid
from aios.errors import AiosError, InvalidCall, NotFound, ToolFailed
from aios.kernel.tools import registry
from aios.sdk import blocking
from aios.sdk.client import Client, connect
from aios.sdk.toolbox import AnyTool, BlockingToolbox, Toolbox
from aios.sdk.tools import tool

pytestmark = pytest.mark.anyio


@tool(effect="pure", reads=["~/{path}"], is_pure=True)
def count(path: str, words: list[str]) -> dict[str, int]:
    """Count words.

    Args:
        path: Where.
        words: Which.
    """
    return dict.fromkeys(words, len(path))


@tool
async def fail(message: str) -> str:
    """Fail with this message."""
    raise ValueError(message)


@tool
def where() -> str:
    """Say in which process this runs."""
    return f"{os.getpid()} {threading.current_thread() is threading.main_thread()}"


def test_both_have_the_same_methods() -> None:
    def surface(cls: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if name[0] != "_"}

    assert surface(BlockingToolbox) == surface(Toolbox)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_functions_are_served_to_others_over_a_socket(over: str) -> None:
    with anyio.fail_after(30):
        async with served(http=over == "http") as kernel:
            url = next(url for url in kernel.urls if url.startswith(over))
            _, token = kernel.admit("desk")
            async with connect(url, token) as desk, anyio.create_task_group() as tasks:
                names = await tasks.start(desk.tools.serve, count, fail, where)
                assert names == ("desk/count", "desk/fail", "desk/where")

                def use() -> None:
                    with blocking.connect(url, kernel.owner_token) as client:
                        result = client.tools.run("desk/count", {"path": "abc", "words": ["x"]})
                        assert (result.text, result.is_json) == ('{"x":3}', True)
                        again = client.tools.run("desk/count", '{words: ["x"], path: "abc"}')
                        assert again.is_cached
                        assert again.notes
                        with pytest.raises(ToolFailed, match="ValueError: too bad"):
                            client.tools.run("desk/fail", {"message": "too bad"})
                        with pytest.raises(InvalidCall, match="words"):
                            client.tools.run("desk/count", {"path": "abc"})
                        with pytest.raises(InvalidCall, match="no JSON"):
                            client.tools.run("desk/count", {"path": object()})
                        (info,) = client.tools.describe("desk/count")
                        assert (info.traits.reads, info.traits.is_pure) == (("~/{path}",), True)
                        assert info.returns is not None

                await to_thread.run_sync(use)
                tasks.cancel_scope.cancel()


async def test_a_list_that_comes_in_several_answers_is_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "PAGE_BYTES", 1)
    async with served() as kernel:

        def listed() -> list[str]:
            with blocking.connect(kernel.urls[0], kernel.owner_token) as client:
                return [each.name for each in client.tools.list()]

        with anyio.fail_after(30):
            names = await to_thread.run_sync(listed)
            assert names == [each.name for each in await Client(kernel.init_gate()).tools.list()]
        assert (names, len(names) > 1) == (sorted(set(names)), True)


@pytest.mark.parametrize("max_parallel", [1, 64])
async def test_a_call_that_nobody_wants_any_more_is_cancelled_where_it_runs(
    max_parallel: int,
) -> None:
    begun, cancelled = anyio.Event(), anyio.Event()

    @tool
    async def hang() -> None:
        """Hang."""
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with booted() as kernel:
        desk, user = Client(kernel.gate(kernel.admit("desk")[0].pid)), Client(kernel.init_gate())
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                await tasks.start(partial(desk.tools.serve, hang, max_parallel=max_parallel))
                async with anyio.create_task_group() as callers:
                    callers.start_soon(user.tools.run, "desk/hang")
                    await begun.wait()
                    callers.cancel_scope.cancel()
                await cancelled.wait()
                assert (await user.tools.run("calculator", {"expression": "1+1"})).text == "2"
                tasks.cancel_scope.cancel()


async def test_calls_run_side_by_side_and_one_takes_one_call_of_the_kernel() -> None:
    n_inside, all_inside = 0, anyio.Event()

    @tool
    async def meet(n: int) -> int:
        """Wait until as many are inside."""
        nonlocal n_inside
        n_inside += 1
        if n_inside == n:
            all_inside.set()
        await all_inside.wait()
        return n

    async with booted() as kernel:
        process, _ = kernel.admit("desk")
        desk, user = Client(kernel.gate(process.pid)), Client(kernel.init_gate())
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                await tasks.start(partial(desk.tools.serve, meet, max_parallel=5))
                for _ in range(20):
                    assert (await user.tools.run("desk/meet", {"n": 1})).text == "1"
                await wait_all_tasks_blocked()
                names = [record.call for record in kernel.journal.records(process.pid)]
                assert names.count("tool_take") == 20 + 3, (
                    "two wait for calls, one for cancellations"
                )
                assert "tool_return" not in names
                n_inside, all_inside = 0, anyio.Event()
                async with anyio.create_task_group() as callers:
                    for _ in range(5):
                        callers.start_soon(user.tools.run, "desk/meet", {"n": 5})
                tasks.cancel_scope.cancel()


async def test_plain_functions_run_side_by_side_too_as_many_as_are_served() -> None:
    n = 50  # more than the threads that anyio shares by default
    together = threading.Barrier(n)

    @tool(max_parallel=n)
    def meet() -> int:
        """Wait until as many are inside."""
        return together.wait(timeout=30)

    async with booted() as kernel:
        desk, user = Client(kernel.gate(kernel.admit("desk")[0].pid)), Client(kernel.init_gate())
        places = set[str]()

        async def ask() -> None:
            places.add((await user.tools.run("desk/meet")).text)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                await tasks.start(desk.tools.serve, meet)
                async with anyio.create_task_group() as callers:
                    for _ in range(n):
                        callers.start_soon(ask)
                tasks.cancel_scope.cancel()
        assert len(places) == n


async def test_a_plain_program_serves_its_functions_one_after_another() -> None:
    with anyio.fail_after(30):
        async with served() as kernel:
            process, token = kernel.admit("desk")
            url = kernel.urls[0]

            def serve() -> None:
                with blocking.connect(url, token) as client:
                    with pytest.raises(InvalidCall, match="async"):
                        client.tools.serve(fail)
                    client.tools.serve(count, where)

            async def use(pid: Pid) -> None:
                user = Client(kernel.init_gate())
                while not any(each.provider == pid for each in await user.tools.list()):
                    await anyio.sleep(0.01)
                text = (await user.tools.run("desk/where")).text
                assert text == f"{os.getpid()} False"
                with pytest.raises(NotFound):
                    await user.tools.unregister("desk/where")
                await user.kill(pid)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, process.pid)
                with pytest.raises(Exception, match="exited"):
                    await to_thread.run_sync(serve)


async def test_a_program_may_serve_twice_and_each_takes_the_calls_of_both() -> None:
    all_begun, cancelled = anyio.Semaphore(0), anyio.Semaphore(0)

    @tool
    async def hang() -> None:
        """Hang."""
        all_begun.release()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.release()

    async with booted() as kernel:
        desk, user = Client(kernel.gate(kernel.admit("desk")[0].pid)), Client(kernel.init_gate())
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                await tasks.start(desk.tools.serve, hang)
                second, ended = anyio.CancelScope(), anyio.Event()

                async def serve_too(*, task_status: anyio.abc.TaskStatus[tuple[str, ...]]) -> None:
                    with second:
                        await desk.tools.serve(count, where, task_status=task_status)
                    ended.set()

                await tasks.start(serve_too)
                for _ in range(6):
                    text = (await user.tools.run("desk/where")).text
                    assert text == f"{os.getpid()} False"
                for _ in range(3):
                    async with anyio.create_task_group() as callers:
                        for _ in range(4):
                            callers.start_soon(user.tools.run, "desk/hang")
                        for _ in range(4):
                            await all_begun.acquire()
                        callers.cancel_scope.cancel()
                    for _ in range(4):
                        await cancelled.acquire()
                second.cancel()
                await ended.wait()
                with pytest.raises(ToolFailed, match="not served any more"):
                    await user.tools.run("desk/where")
                tasks.cancel_scope.cancel()


async def test_a_plain_program_may_serve_in_two_threads() -> None:
    @tool
    def meet(n: int) -> int:
        """Wait for the other one."""
        together.wait(timeout=30)
        return n

    together = threading.Barrier(2)
    with anyio.fail_after(60):
        async with served() as kernel:
            process, token = kernel.admit("desk")
            user = Client(kernel.init_gate())
            with blocking.connect(kernel.urls[0], token) as desk:

                async def serve(*tools: AnyTool) -> None:
                    with pytest.raises(AiosError, match="exited"):
                        await to_thread.run_sync(desk.tools.serve, *tools)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve, meet)
                    tasks.start_soon(serve, where)
                    while len([t for t in await user.tools.list() if t.provider]) < 2:
                        await anyio.sleep(0.01)
                    for _ in range(2):
                        async with anyio.create_task_group() as callers:
                            callers.start_soon(user.tools.run, "desk/meet", {"n": 1})
                            callers.start_soon(user.tools.run, "desk/meet", {"n": 2})
                    for _ in range(4):
                        assert (await user.tools.run("desk/where")).text.startswith(
                            str(os.getpid())
                        )
                    await user.kill(process.pid)


def test_traits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidCall, match="traits"):
        tool(effect="none")(where.function)  # type: ignore[call-overload]  # that is the point
