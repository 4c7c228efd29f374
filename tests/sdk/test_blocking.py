import inspect
from collections.abc import Callable, Iterator
from functools import partial

import anyio
import pytest
from anyio import to_thread
from tests.sdk.serving import SILENT, scripted, served

from aios.abi.storage import FileDraft
from aios.abi.types import State
from aios.engine.base import ChatPrompt, Job
from aios.engine.script import Script
from aios.errors import InvalidCall, KernelUnreachable, NotFound
from aios.sdk import blocking
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

Body = Callable[[blocking.Client], None]


async def run(body: Body, script: Script = SILENT, *, over: str = "unix") -> None:
    """Run a plain function with a client, in a thread, beside the kernel."""

    def work(url: str, token: str) -> None:
        with blocking.connect(url, token) as client:
            body(client)

    with anyio.fail_after(30):
        async with served(script, http=over == "http") as kernel:
            url = next(url for url in kernel.urls if url.startswith(over))
            await to_thread.run_sync(work, url, kernel.owner_token)
            kernel.check_invariants()


def last_words(job: Job) -> str:
    assert isinstance(job.prompt, ChatPrompt)
    return job.prompt.messages[-1].text()


def test_both_clients_have_the_same_methods() -> None:
    def surface(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(blocking.Client) == surface(Client)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_calls_wait_for_their_answers(over: str) -> None:
    def body(client: blocking.Client) -> None:
        assert client.getpid().name == "init"
        assert client.chat("hi", temperature=0).text == "hello"
        assert client.chat("n", schema={"type": "integer", "minimum": 4}).parsed == 4
        assert client.complete("x").text
        assert len(client.embed(["a", "b"]).vectors) == 2
        assert client.tokenize("a b").tokens
        assert client.count_tokens("a b").n_tokens
        assert client.info().engines[0].model == "scripted"
        with pytest.raises(NotFound):
            client.wait(999)
        with pytest.raises(InvalidCall, match="max_tokens"):
            client.chat("x", max_tokens=-1)

    await run(body, scripted("hello"), over=over)


async def test_an_upload_that_is_interrupted_leaves_no_draft() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise KeyboardInterrupt

    def body(client: blocking.Client) -> None:
        with pytest.raises(KeyboardInterrupt):
            client.files.upload("/shared/a", broken())
        with pytest.raises(NotFound, match="no draft 1"):
            client.gate.call(FileDraft(b"x", draft=1))

    await run(body)


async def test_changes_that_are_followed_are_versions_here_too() -> None:
    def body(client: blocking.Client) -> None:
        client.files.write("/shared/a", "1")
        with client.files.follow("/shared", since=0) as changes:
            assert next(changes).path == "/shared/a"
            client.files.write("/shared/b", "1")
            for version in changes:
                assert (version.path, version.version, changes.n_missed) == ("/shared/b", 1, 0)
                break

    await run(body)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_streams_bring_pieces_and_can_be_left(over: str) -> None:
    def body(client: blocking.Client) -> None:
        with client.stream_chat("tell", max_tokens=30) as stream:
            pieces = list(stream)
            assert "".join(pieces) == stream.reply().text
        assert len(pieces) > 1
        with client.stream_complete("tell", max_tokens=30) as completion:
            assert "".join(completion) == completion.reply().text
        with client.stream_chat("tell") as stream:
            for _ in stream:
                break
        while (
            client.info().n_in_flight > 1
        ):  # it counts itself; over HTTP the kernel learns of the leaving a bit later
            pass

    await run(body, Script(answer_tokens=2000, token_delay_s=0.001), over=over)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_errors_pass_through_a_stream_bare(over: str) -> None:
    def body(client: blocking.Client) -> None:
        with pytest.raises(NotFound, match="nobody"):
            with client.stream_chat("tell", model="nobody") as stream:
                list(stream)
        with pytest.raises(ZeroDivisionError):
            with client.stream_chat("tell"):
                raise ZeroDivisionError

    await run(body, over=over)


async def test_processes_can_be_seen_held_and_ended() -> None:
    def body(owner: blocking.Client) -> None:
        guest = owner.admit("visitor")
        assert guest.pid in {row.pid for row in owner.ps()}
        assert owner.stop(guest.pid) == owner.cont(guest.pid) == (guest.pid,)
        assert owner.nice(guest.pid, 4) == 4
        owner.log("a line")
        with owner.logs(1, tail=1) as lines:
            assert [line.text for line in lines] == ["a line"]
            assert lines.end().n_lines == 1
        assert owner.kill(guest.pid, "over") == (guest.pid,)
        assert "over" in owner.wait(guest.pid).exit.reason
        states = {row.pid: row.state for row in owner.ps(include_ended=True)}
        assert states[guest.pid] is State.EXITED
        owner.shutdown()

    await run(body)


async def test_a_guest_ends_itself_with_a_result() -> None:
    with anyio.fail_after(30):
        async with served() as kernel:
            guest = await Client(kernel.init_gate()).admit("visitor")

            def work() -> None:
                with blocking.connect(kernel.urls[0], guest.token) as client:
                    client.exit(7, "bye")

            await to_thread.run_sync(work)
            end = (await Client(kernel.init_gate()).wait(guest.pid)).exit
            assert (end.status, end.result) == (7, "bye")


async def test_many_threads_may_use_one_client() -> None:
    def body(client: blocking.Client) -> None:
        texts: list[str] = []

        async def ask_all() -> None:
            async with anyio.create_task_group() as tasks:
                for i in range(8):
                    tasks.start_soon(to_thread.run_sync, partial(ask, client, i, texts))

        anyio.run(ask_all)
        assert sorted(texts) == sorted(f"<{i}>" for i in range(8))

    def ask(client: blocking.Client, i: int, texts: list[str]) -> None:
        texts.append(client.chat(f"<{i}>").text)

    await run(body, Script(answer=last_words, token_delay_s=0.001))


def test_without_a_kernel_the_error_says_how_to_start_one(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIOS_URL", "AIOS_TOKEN", "AIOS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIOS_HOME", str(tmp_path))
    with pytest.raises(KernelUnreachable) as caught:
        with blocking.connect():
            pass
    assert "aios serve" in caught.value.hint
