"""A generation at a remote endpoint: how its stream can go wrong, closing, cancelling."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.abc
import pytest
from msgspec.structs import replace
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from tests.engine.jobs import chat, read_all, run
from tests.engine.remote.bad_endpoint import (
    BadEndpoint,
    Reply,
    cancelled_read,
    dropped_after,
    end,
    engine_at,
    event,
    failure,
    flood,
    plain,
    stream,
    text,
)
from tests.kernel import calls

from aios.abi.call import Answer, Call
from aios.abi.calls import Cont, Embed, Stop, Tokenize
from aios.abi.gate import Token
from aios.abi.types import Finish, ToolSpec
from aios.config import Config, Home, SchedulerConfig
from aios.errors import (
    AiosError,
    EngineFailed,
    EngineUnavailable,
    InvalidCall,
)
from aios.kernel.cores import CoreConfig
from aios.kernel.kernel import open_kernel

pytestmark = pytest.mark.anyio


def vllm() -> Response:
    """What an endpoint says of its models that goes on from a text."""
    return JSONResponse({"data": [{"id": "m", "owned_by": "vllm"}]})


# --- how a stream can go wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (dropped_after(text("a"), text("b"), text("c")), ["after 3 tokens"]),
        (stream(text("a")), ["after 1 tokens", "in the middle"]),
        (stream(text("a"), event(error={"message": "CUDA out of memory"})), ["after 1 tokens", "CUDA"]),
        (stream("data: {not json\n\n"), ["malformed"]),
        (stream('data: {"choices": 7}\n\n'), ["malformed"]),
        (stream("data: " + "[" * 100_000 + "\n\n"), ["malformed"]),
        (stream(*(text("", delta={"tool_calls": [{"index": i}]}) for i in range(300))), ["tool calls"]),
        (flood(b"x" * 65536, 1600), ["line of over"]),
        (stream(*[text("a")] * 2_000, end()), ["the most that it was asked for"]),
    ],
)  # fmt: skip
async def test_a_stream_that_breaks_says_how_far_it_came(reply: Reply, words: list[str]) -> None:
    error = await failure(reply)
    assert isinstance(error, EngineFailed)
    for word in words:
        assert word in error.message


async def test_bytes_that_are_not_utf8_are_an_error() -> None:
    error = await failure(plain(200, "", "text/event-stream"))
    assert "in the middle" in error.message
    error = await failure(lambda: Response(b"data: \xff\xfe\n\n", media_type="text/event-stream"))
    assert isinstance(error, EngineFailed)
    assert "UTF-8" in error.message


async def test_silence_ends_after_the_time_out_with_the_tokens_that_came() -> None:
    endpoint = BadEndpoint()
    endpoint.replies = [endpoint.silent_after(text("a"), text("b"))]
    async with engine_at(endpoint, timeout_s=1) as engine:
        with anyio.fail_after(30), pytest.raises(EngineFailed, match="fell silent after 2 tokens"):
            await run(engine, chat())


async def test_half_a_line_is_no_sign_of_life() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await anyio.sleep(0.02)

    error = await failure(
        lambda: StreamingResponse(drip(), media_type="text/event-stream"), timeout_s=1
    )
    assert "nothing came" in error.message


async def test_comments_keep_a_slow_stream_alive() -> None:
    async def slow() -> AsyncIterator[str]:
        for _ in range(10):
            yield ": still in the queue\n"
            await anyio.sleep(0.15)
        yield text("at last") + end()

    endpoint = BadEndpoint([lambda: StreamingResponse(slow(), media_type="text/event-stream")])
    async with engine_at(endpoint, timeout_s=1) as engine:
        assert (await run(engine, chat())).text == "at last"


# --- closing and cancelling ------------------------------------------------------------------------------------------


async def test_closing_a_sequence_cancels_its_request() -> None:
    endpoint = BadEndpoint()
    endpoint.replies = [endpoint.silent_after(text("a"))]
    async with engine_at(endpoint) as engine:
        sequence = await engine.open(chat())
        assert (await sequence.read()).text == "a"
        await sequence.close()
        with anyio.fail_after(30):
            await endpoint.gone.wait()


async def test_closing_the_engine_wakes_a_reader_that_waits_for_the_network() -> None:
    endpoint = BadEndpoint()
    endpoint.replies = [endpoint.silent_after(text("a"))]
    told: list[str] = []

    async with engine_at(endpoint) as engine:
        sequence = await engine.open(chat())
        assert (await sequence.read()).text == "a"

        async def reader() -> None:
            with pytest.raises(EngineUnavailable, match="closed"):
                await sequence.read()
            told.append("yes")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader)
                await anyio.wait_all_tasks_blocked()
                await engine.aclose()
            await endpoint.gone.wait()
    assert told == ["yes"]


async def test_after_a_cancelled_read_the_same_is_asked_for_and_what_was_read_is_skipped() -> None:
    endpoint = BadEndpoint()
    endpoint.replies = [
        endpoint.silent_after(text("Hel")),
        stream(text("He"), text("llo"), end(prompt_tokens=7, completion_tokens=2)),
    ]
    async with engine_at(endpoint) as engine:
        sequence = await engine.open(chat())
        first = await sequence.read()
        await cancelled_read(sequence.read)
        rest = await read_all(sequence)
        await sequence.close()
    assert (first.text, rest.text) == ("Hel", "lo")
    assert first.n_tokens + rest.n_tokens == rest.usage.completion_tokens == 2
    assert endpoint.posts[0].body == endpoint.posts[1].body


@pytest.mark.parametrize("other", [stream(text("Goodbye"), end()), stream(text("He"), end())])
async def test_two_different_answers_are_never_joined(other: Reply) -> None:
    endpoint = BadEndpoint()
    endpoint.replies = [endpoint.silent_after(text("Hel")), other]
    async with engine_at(endpoint) as engine:
        sequence = await engine.open(chat())
        await sequence.read()
        await cancelled_read(sequence.read)
        with pytest.raises(EngineFailed, match="something else"):
            await read_all(sequence)
        await sequence.close()
        assert engine.statistics().n_running == 0


async def test_a_generation_suspended_after_its_last_token_ends_without_another_request() -> None:
    endpoint = BadEndpoint(models=vllm)
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    last = event(choices=[{"index": 0, "delta": {"content": "ab"}}], usage=usage)
    endpoint.replies = [endpoint.silent_after(last)]
    async with engine_at(endpoint) as engine:
        job = chat(max_tokens=2)
        sequence = await engine.open(job)
        assert (await sequence.read()).n_tokens == 2
        resumed = await engine.open(job, await sequence.suspend())
        outcome = await read_all(resumed)
        await resumed.close()
    assert len(endpoint.posts) == 1
    assert (outcome.text, outcome.finish) == ("", Finish.LENGTH)
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (7, 2)


async def test_alternatives_that_nobody_asked_for_are_left_out() -> None:
    row = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}
    chunk = event(choices=[{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [row]}}])
    async with engine_at(BadEndpoint([stream(chunk, end())])) as engine:
        (found,) = (await run(engine, chat(top_logprobs=0))).logprobs
    assert (found.token, found.top) == ("a", ())


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("has_tools", [False, True])
async def test_a_stop_leaves_the_request_be_and_nothing_is_told_before_its_process_goes_on(
    tmp_path: Path, *, is_cut: bool, has_tools: bool
) -> None:
    """Of an endpoint that cannot go on from a text, or not from the middle of a tool call. The slot is another's once all is there."""
    may_end = anyio.Event()
    call = replace(calls.chat(), tools=(ToolSpec("clock"),) if has_tools else ())

    async def body() -> AsyncIterator[str]:
        yield text("Hel")
        await may_end.wait()
        yield event(error={"message": "CUDA"}) if is_cut else text("lo") + end()

    endpoint = BadEndpoint([lambda: StreamingResponse(body(), media_type="text/event-stream")])
    endpoint.replies.append(stream(text("fine"), end()))
    if has_tools:
        endpoint.models = vllm
    with anyio.fail_after(30):
        async with (
            engine_at(endpoint, n_slots=1) as engine,
            open_kernel(Config(), Home(tmp_path), engines={"a": engine}) as kernel,
        ):
            pid, other, init = (
                kernel.admit("ann")[0].pid,
                kernel.admit("bob")[0].pid,
                kernel.init_gate(),
            )
            async with kernel.gate(pid).open_call(call) as frames:
                await anext(aiter(frames))
                await init.call(Stop(pid=pid))
                may_end.set()
                answer = (await kernel.gate(other).call(calls.chat())).value
                assert answer.message.content == "fine", "it waited for a stopped process"
                with anyio.move_on_after(0.1) as waiting, contextlib.suppress(EngineFailed):
                    await anext(aiter(frames))
                assert waiting.cancelled_caught, "a stopped process was told"
                await init.call(Cont(pid=pid))
                if is_cut:
                    with pytest.raises(EngineFailed, match="CUDA"):
                        await frames.result()
                else:
                    assert [frame async for frame in frames] == [Token("lo", 1)]
                    assert (await frames.result()).value.message.content == "Hello"
        assert len(endpoint.posts) == 2


def hello(may_go_on: anyio.Event, may_end: anyio.Event) -> StreamingResponse:
    """An answer in three parts, of which the second and the third wait."""

    async def body() -> AsyncIterator[str]:
        yield text("Hel")
        await may_go_on.wait()
        yield text("l")
        await may_end.wait()
        yield text("o") + end()

    return StreamingResponse(body(), media_type="text/event-stream")


async def test_what_came_while_a_process_was_stopped_is_told_as_soon_as_it_goes_on(
    tmp_path: Path,
) -> None:
    may_go_on, may_end = anyio.Event(), anyio.Event()
    endpoint = BadEndpoint([lambda: hello(may_go_on, may_end)])
    with anyio.fail_after(30):
        async with (
            engine_at(endpoint) as engine,
            open_kernel(Config(), Home(tmp_path), engines={"a": engine}) as kernel,
        ):
            pid, init = kernel.admit("ann")[0].pid, kernel.init_gate()
            async with kernel.gate(pid).open_call(calls.chat()) as frames:
                await anext(aiter(frames))
                await init.call(Stop(pid=pid))
                may_go_on.set()
                while engine.statistics().n_generated_tokens < 2:
                    await anyio.sleep(0.001)
                await init.call(Cont(pid=pid))
                assert await anext(aiter(frames)) == Token("l", 1)
                may_end.set()
                assert (await frames.result()).value.message.content == "Hello"


async def test_a_call_of_a_stopped_process_moves_to_no_other_engine(tmp_path: Path) -> None:
    may_break, was_told = anyio.Event(), anyio.Event()
    broken = BadEndpoint([lambda: LateResponse(dropped_after()(), may_break)])
    other = BadEndpoint([stream(text("fine"), end())])
    with anyio.fail_after(30):
        async with (
            engine_at(broken, n_retries=0) as first,
            engine_at(other) as second,
            open_kernel(Config(), Home(tmp_path), engines={"a": first, "b": second}) as kernel,
            anyio.create_task_group() as tasks,
        ):
            kernel.cores.get("a").config = CoreConfig(fallback=("b",))
            pid, init = kernel.admit("ann")[0].pid, kernel.init_gate()

            async def ask() -> None:
                answer = (await kernel.gate(pid).call(calls.chat())).value
                assert answer.message.content == "fine"
                was_told.set()

            tasks.start_soon(ask)
            while not broken.posts:
                await anyio.sleep(0.001)
            await init.call(Stop(pid=pid))
            may_break.set()
            while first.statistics().n_running:
                await anyio.sleep(0.001)
            with anyio.move_on_after(0.1):
                await was_told.wait()
            assert not other.posts
            await init.call(Cont(pid=pid))
            await was_told.wait()


@pytest.mark.parametrize("has_tools", [True, False])
async def test_only_what_can_go_on_from_its_text_is_preempted(
    tmp_path: Path, *, has_tools: bool
) -> None:
    may_go_on, may_end = anyio.Event(), anyio.Event()
    endpoint = BadEndpoint(models=vllm)
    endpoint.replies = [
        lambda: hello(may_go_on, may_end),
        stream(text("o"), end()),
    ]
    config = Config(scheduler=SchedulerConfig(policy="rr", quantum_tokens=1))
    call = replace(calls.chat(), tools=(ToolSpec("clock"),) if has_tools else ())
    with anyio.fail_after(30):
        async with (
            engine_at(endpoint, n_slots=1) as engine,
            open_kernel(config, Home(tmp_path), engines={"a": engine}) as kernel,
            anyio.create_task_group() as tasks,
        ):
            first, second = (kernel.gate(kernel.admit(name)[0].pid) for name in ("one", "two"))
            async with first.open_call(call) as frames:
                await anext(aiter(frames))
                tasks.start_soon(second.call, calls.chat())
                while not kernel.scheduler.statistics()["engine:a"].n_queued:
                    await anyio.sleep(0.001)
                may_go_on.set()
                while engine.statistics().n_generated_tokens < 2:
                    await anyio.sleep(0.001)
                may_end.set()
                result = await frames.result()
            assert result.value.message.content == "Hello"
            assert result.n_preemptions == (0 if has_tools else 1)
        assert len(endpoint.posts) == (2 if has_tools else 3)


class LateResponse(Response):
    """Another response, once it may begin."""

    def __init__(self, response: Response, may_begin: anyio.Event) -> None:
        super().__init__()
        self.response = response
        self.may_begin = may_begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.may_begin.wait()
        await self.response(scope, receive, send)


def vectors(n_texts: int) -> Response:
    """Vectors of so many texts."""
    data = [{"index": i, "embedding": [1.0]} for i in range(n_texts)]
    return JSONResponse({"data": data, "usage": {"prompt_tokens": n_texts}})


async def test_a_stopped_process_sends_no_more_of_its_texts_to_an_endpoint(tmp_path: Path) -> None:
    may_begin = anyio.Event()
    endpoint = BadEndpoint(
        [lambda: LateResponse(vectors(256), may_begin), stream(text("fine"), end())]
    )
    endpoint.replies.append(lambda: vectors(44))
    found: tuple[tuple[float, ...], ...] = ()
    with anyio.fail_after(30):
        async with (
            engine_at(endpoint, timeout_s=30.0, n_slots=1) as engine,
            open_kernel(Config(), Home(tmp_path), engines={"a": engine}) as kernel,
            anyio.create_task_group() as tasks,
        ):
            kernel.cores.get("a").kind = "openai"
            pid, init = kernel.admit("ann")[0].pid, kernel.init_gate()

            async def embed() -> None:
                nonlocal found
                texts = tuple(map(str, range(300)))
                found = (await kernel.gate(pid).call(Embed(texts=texts))).value.vectors

            tasks.start_soon(embed)
            while not endpoint.posts:
                await anyio.sleep(0.001)
            await init.call(Stop(pid=pid))
            may_begin.set()
            await kernel.gate(kernel.admit("bob")[0].pid).call(calls.chat())
            assert len(endpoint.posts) == 2
            await init.call(Cont(pid=pid))
    assert len(found) == 300
    assert len(endpoint.posts) == 3


@pytest.mark.parametrize(
    ("models", "call", "reply", "n_posts", "told"),
    [
        (None, calls.chat(), stream(text("Hello"), end()), 1, Finish.STOP),
        (vllm, calls.chat(), stream(text("Hello"), end()), 2, Finish.STOP),
        (None, calls.chat(), lambda: JSONResponse({}, 400), 1, InvalidCall),
        (vllm, calls.chat(), lambda: JSONResponse({}, 400), 1, InvalidCall),
        (None, Embed(texts=("a",)), lambda: vectors(1), 1, None),
        (None, Embed(texts=("a",)), lambda: JSONResponse({}, 400), 1, InvalidCall),
        (vllm, Tokenize(text="a"), lambda: JSONResponse({"count": 1, "tokens": [7]}), 1, None),
        (vllm, Tokenize(text="a"), lambda: JSONResponse({}, 400), 1, InvalidCall),
    ],
)
async def test_a_stop_does_not_wait_until_the_endpoint_begins_to_answer(
    tmp_path: Path,
    models: Reply | None,
    call: Call[Answer],
    reply: Reply,
    n_posts: int,
    told: object,
) -> None:
    may_begin, was_told = anyio.Event(), anyio.Event()
    endpoint = BadEndpoint([lambda: LateResponse(reply(), may_begin)])
    endpoint.replies.append(stream(text("fine"), end()))
    endpoint.models = models or endpoint.models
    found: object = None
    with anyio.fail_after(30):
        async with (
            engine_at(endpoint, timeout_s=30.0, n_slots=1) as engine,
            open_kernel(Config(), Home(tmp_path), engines={"a": engine}) as kernel,
            anyio.create_task_group() as tasks,
        ):
            kernel.cores.get("a").kind = "openai"
            pid, init = kernel.admit("ann")[0].pid, kernel.init_gate()
            other = kernel.gate(kernel.admit("bob")[0].pid)

            async def ask() -> None:
                nonlocal found
                try:
                    found = getattr((await kernel.gate(pid).call(call)).value, "finish", None)
                except AiosError as error:
                    found = type(error)
                was_told.set()

            tasks.start_soon(ask)
            while not endpoint.posts:
                await anyio.sleep(0.001)
            await init.call(Stop(pid=pid))
            may_begin.set()
            answer = (await other.call(calls.chat())).value
            assert answer.message.content == "fine", "it waited for a stopped process"
            with anyio.move_on_after(0.1):
                await was_told.wait()
            assert not was_told.is_set(), "a stopped process was told"
            await init.call(Cont(pid=pid))
    assert found == told
    assert len(endpoint.posts) == n_posts + 1
