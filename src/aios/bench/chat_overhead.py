"""`chat-overhead`: what the kernel adds to a chat call, by every way in.

The engine is the scripted one, which answers at once. Its own time for the same job, measured directly and in turn with
the calls, is the baseline and is taken off.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx

from aios.abi.calls import Chat
from aios.abi.gate import Gate
from aios.abi.types import Message, Role, Sampling
from aios.bench.bench import Bench, Settings, alternate, seconds_each
from aios.bench.children import Daemon, daemon, scratch_folder
from aios.bench.rows import Bar, Report, Series, Spec, quantile
from aios.config import Config, Home
from aios.engine.base import ChatPrompt, Job
from aios.engine.scripted import ScriptedEngine
from aios.kernel.kernel import open_kernel
from aios.sdk.http import HttpGate
from aios.sdk.socket import UnixGate

NAME = "chat-overhead"
MAX_TOKENS = 24
N_WARM_UP = 50

Act = Callable[[], Awaitable[object]]

SPECS = (
    Spec(NAME, "in-process", "ms", Bar(0.3), "p50 of Chat by the in-process gate"),
    Spec(NAME, "in-process-stream", "ms", None, "the same, its tokens read as frames"),
    Spec(NAME, "socket", "ms", Bar(1.5), "p50 of Chat over the Unix socket of a daemon"),
    Spec(NAME, "socket-stream", "ms", None, "the same, its tokens read as frames"),
    Spec(NAME, "http", "ms", None, "p50 of Chat over HTTP, /aios/call"),
    Spec(NAME, "http-openai", "ms", None, "p50 of POST /v1/chat/completions"),
)

_MESSAGES = (
    Message(Role.SYSTEM, "You are an agent. Answer in one short sentence."),
    Message(Role.USER, "Which files have changed since yesterday, and who changed them?"),
)
_SAMPLING = Sampling(temperature=0.0, seed=1)
_CALL = Chat(messages=_MESSAGES, sampling=_SAMPLING, max_tokens=MAX_TOKENS)
_JOB = Job(ChatPrompt(_MESSAGES), _SAMPLING, MAX_TOKENS)
_BODY = {
    "model": "default",
    "messages": [{"role": m.role.value, "content": m.text()} for m in _MESSAGES],
    "temperature": 0,
    "seed": 1,
    "max_tokens": MAX_TOKENS,
}


async def measure(settings: Settings, report: Report) -> None:
    """Measure in-process first, then against a daemon in another process."""
    n_calls, n_repeats = (100, 3) if settings.quick else (500, 5)
    engine = ScriptedEngine()
    await engine.start()

    async def direct() -> None:
        sequence = await engine.open(_JOB)
        while (await sequence.read()).finish is None:
            pass
        await sequence.close()

    async def compare(row: str, act: Act) -> None:
        settings.say(f"{row}: {n_repeats} times {n_calls} calls")
        await seconds_each(N_WARM_UP, act)
        calls, own = await alternate(n_repeats, p50_ms(act, n_calls), p50_ms(direct, n_calls))
        _report(report, row, calls=calls, own=own)

    with scratch_folder() as folder:
        async with open_kernel(
            Config(), Home(folder / "home"), engines={"scripted": ScriptedEngine()}
        ) as kernel:
            gate = kernel.init_gate()
            await compare("in-process", lambda: gate.call(_CALL))
            await compare("in-process-stream", lambda: _stream(gate))
        settings.say("starting a daemon with the scripted engine")
        async with daemon(folder, {"AIOS_ENGINE_KIND": "scripted"}) as served:
            await _over_the_wire(served, compare)


def p50_ms(act: Act, n: int) -> Callable[[], Awaitable[float]]:
    """A measure: the median of `n` calls in milliseconds."""

    async def measured() -> float:
        return 1000 * quantile(await seconds_each(n, act), 0.5)

    return measured


async def _over_the_wire(served: Daemon, compare: Callable[[str, Act], Awaitable[None]]) -> None:
    async with AsyncExitStack() as stack:
        unix = await stack.enter_async_context(UnixGate.connect(served.socket, served.token))
        await compare("socket", lambda: unix.call(_CALL))
        await compare("socket-stream", lambda: _stream(unix))
        http = await stack.enter_async_context(HttpGate(served.http_url, served.token))
        await compare("http", lambda: http.call(_CALL))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=served.http_url,
                headers={"Authorization": f"Bearer {served.token}"},
                trust_env=False,
            )
        )
        await compare("http-openai", lambda: _post(client))


async def _stream(gate: Gate) -> None:
    async with gate.open_call(_CALL) as frames:
        async for _ in frames:
            pass
        await frames.result()


async def _post(client: httpx.AsyncClient) -> None:
    (await client.post("/v1/chat/completions", json=_BODY)).raise_for_status()


def _report(report: Report, row: str, *, calls: Series, own: Series) -> None:
    extra = Series(tuple(a - b for a, b in zip(calls.values, own.values, strict=True)))
    report.add(
        row,
        extra.median,
        baseline=own.median,
        spread=calls.spread,
        note=f"a call takes {calls.median:.3f} ms, of which the engine {own.median:.3f} ms",
    )


BENCH = Bench(NAME, "what the kernel adds to a chat call", 120.0, SPECS, measure)
