"""A generation at a remote endpoint: one HTTP request, read as it streams.

`close` cancels the request, which is how the endpoint learns that nobody wants it.

A `read` that is cancelled tears the connection. The next one asks for the same again and skips what was handed out before;
with the seed that every job has, endpoints mostly say the same. One that says something else is told apart, and the
generation fails: text is never joined from two different answers.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.types import Finish, Usage
from aios.engine.abilities import can_go_on
from aios.engine.base import Delta, Job, Suspended
from aios.engine.remote.chunks import ChunkReader
from aios.engine.remote.endpoint import Answer, Endpoint, EventStream, Patience
from aios.engine.remote.problems import DROPPED, SILENT, Problem, error_of
from aios.errors import AiosError, EngineFailed, EngineUnavailable, Unsupported

MAX_TIMES_OVER = 8
"""Some endpoints cut tokens into several pieces; one that sends so many times as many as it may heeds no limit."""
SPARE_PIECES = 64
USAGE_TIMEOUT_S = 5.0
"""How long to wait for the usage, once everything else has come."""

_NO_STREAM = ("text/html", "application/json")


class Emitted(Struct, frozen=True):
    """What the endpoint has said of a generation so far; this is suspended state, too.

    `n_tokens` tokens have come. `n_shown` of them make up the text; the endpoint holds that of the others back, for it
    may become a stop string, so they are not there for it to go on from.
    """

    text: str = ""
    n_tokens: int = 0
    n_shown: int = 0
    n_prompt: int | None = None


@dataclass
class Counters:
    """What the engine's statistics add up."""

    n_sequences: int = 0
    n_prompt_tokens: int = 0
    n_prompt_tokens_computed: int = 0
    n_generated_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(eq=False)
class RemoteSequence:
    """Reads one stream.

    Args:
        job: What was asked for.
        before: What had been said before it was suspended.
        endpoint: Where it comes from.
        ask: Sends the request (again), for what comes after a text.
        release: Gives the engine's slot back.
        counters: Of the engine.
        timeout_s: The longest silence.
        patience: Retries that are left until the first token.
        fingerprint: The engine's; empty if the endpoint cannot go on from a text.
        may_echo: The endpoint may say again what it goes on from (llama-server does since 2026, and did not before).
    """

    job: Job
    before: Emitted
    endpoint: Endpoint
    ask: Callable[[Emitted, Patience], Awaitable[Answer]]
    release: Callable[["RemoteSequence"], None]
    counters: Counters
    timeout_s: float
    patience: Patience
    fingerprint: str
    may_echo: bool = False

    def __post_init__(self) -> None:
        # The endpoint is asked to go on from here; of what it then says, all that has been handed out is skipped.
        # An echo of one token could be the next token itself, so such a beginning is asked for again.
        is_clear = not self.may_echo or self.before.n_shown != 1
        self._from = self.before if is_clear and can_go_on(self.job) else Emitted()
        self._reader = ChunkReader()
        self._stream: EventStream | None = None
        self._said = [self.before.text]
        self._n_said = self.before.n_tokens
        self._n_shown = self.before.n_shown
        self._skip = ""
        self._n_skip = 0
        self._ended = ""
        self._failed = ""
        self._is_torn = False
        self._is_finished = False
        self._scope: anyio.CancelScope | None = None
        self._asked_s = perf_counter()
        self._first_s: float | None = None

    async def connect(self) -> None:
        """Send the request; on return the endpoint has accepted it.

        Raises:
            AiosError: See `problems.error_of`.
        """
        if self._is_used_up:
            return
        answer = await self.ask(self._from, self.patience)
        kind = answer.headers.get("content-type", "").lower()
        if kind.startswith(_NO_STREAM):
            await answer.aclose()
            raise EngineFailed(
                f"{self.endpoint.site.host} answered with {kind.split(';')[0]} instead of a stream of events",
                hint="is `engine.base_url` an OpenAI-compatible endpoint? It mostly ends in /v1",
            )
        self._stream = EventStream(answer, self.timeout_s)
        echo = self._from.text if self.may_echo else ""
        self._reader = ChunkReader(self._from.n_shown, self._from.n_prompt, echo)
        self._skip = "".join(self._said)[len(self._from.text) :]
        self._n_skip = self._n_said - self._from.n_shown

    @property
    def usage(self) -> Usage:
        n_prompt = self._reader.n_prompt or self.before.n_prompt or 0
        return Usage(n_prompt, 0, self._n_said)

    async def read(self) -> Delta:
        self._check_readable()
        with anyio.CancelScope() as self._scope:
            if self._is_torn:
                await self._hang_up()
            self._is_torn = True
            try:
                delta = await self._next_delta()
            except AiosError as error:
                self._failed = error.message
                await self._hang_up()
                raise
            self._is_torn = False
            return delta
        raise EngineUnavailable(self._ended)

    async def suspend(self) -> Suspended:
        if self._ended:
            raise EngineUnavailable(self._ended)
        if not self.fingerprint:
            raise Unsupported(
                "this generation cannot be suspended: its endpoint does not go on from a text",
                hint="let it run to its end, or close it",
            )
        n_prompt = self.before.n_prompt if self._reader.n_prompt is None else self._reader.n_prompt
        state = Emitted("".join(self._said), self._n_said, self._n_shown, n_prompt)
        await self.close()
        return Suspended(self.fingerprint, state.n_tokens, emitted=state.text, state=state)

    async def close(self) -> None:
        await self.end("the sequence is closed")

    async def end(self, reason: str) -> None:
        """Leave the slot and cancel the request; whoever is reading gets `EngineUnavailable`. Twice is nothing."""
        if self._ended:
            return
        self._ended = reason
        if self._first_s is not None:
            self.counters.decode_s += perf_counter() - self._first_s
        self.release(self)
        if self._scope is not None:
            self._scope.cancel()
        await self._hang_up()

    @property
    def _is_used_up(self) -> bool:
        """It was suspended between its last token and the word that it was the last."""
        return self.job.max_tokens is not None and self._from.n_shown >= self.job.max_tokens

    def _check_readable(self) -> None:
        if self._ended or self._is_finished:
            raise EngineUnavailable(self._ended or "the sequence has brought its last delta")
        if self._failed:
            raise EngineFailed(self._failed, hint="close the sequence")

    async def _next_delta(self) -> Delta:
        if self._is_used_up:
            usage = Usage(self._from.n_prompt or 0, 0, self._n_said)
            return self._counted(Delta(finish=Finish.LENGTH, usage=usage))
        while True:
            if self._stream is None:
                await self.connect()
            events, problem, is_over = await self._read_events()
            problem = self._take_in(events, problem, is_over=is_over)
            if problem is not None:
                await self._begin_again(problem)
                continue
            if self._reader.is_finished and not self._reader.is_done:
                continue  # the last text goes out together with the usage that is still to come
            if self._reader.is_done and self._stream is not None:
                await self._stream.finish()
            delta = self._unseen(self._reader.take())
            if delta is not None:
                return self._counted(self._without_more_rows(delta))

    async def _read_events(self) -> tuple[list[str], Problem | None, bool]:
        assert self._stream is not None
        if not self._reader.is_finished:
            return await self._stream.read()
        with anyio.move_on_after(USAGE_TIMEOUT_S):
            return await self._stream.read()
        return [], None, True

    def _take_in(
        self, events: list[str], problem: Problem | None, *, is_over: bool
    ) -> Problem | None:
        """Feed the reader; why the generation broke before its end, if it did."""
        reader = self._reader
        for event in events:
            reader.feed(event)
            if reader.problem is not None:
                return reader.problem
            if reader.is_done:
                return None
            if not reader.is_finished:
                self._check_length(reader.n_tokens)
        if is_over and reader.is_finished:
            reader.is_done = True
        elif is_over:
            return problem or Problem(0, "the stream ended in the middle", DROPPED)
        return None

    def _check_length(self, n_tokens: int) -> None:
        """Raises EngineFailed if the endpoint goes on far beyond what was asked for: it would go on for ever, and be paid for."""
        most = self.job.max_tokens
        if most is not None and n_tokens > most * MAX_TIMES_OVER + SPARE_PIECES:
            raise EngineFailed(
                f"{self.endpoint.site.host} sent over {n_tokens} tokens, and {most} are the most that it was asked for",
                hint="look into why it heeds no `max_tokens`",
            )

    async def _begin_again(self, problem: Problem) -> None:
        """Ask once more, if nothing has come yet.

        Raises:
            EngineFailed: Tokens have come, which cannot be taken back.
            AiosError: The problem's own error.
        """
        await self._hang_up()
        if self._reader.n_tokens == 0:
            if not await self.endpoint.retry(problem, self.patience):
                raise error_of(problem, self.endpoint.site)
            return
        n_tokens = self._reader.n_tokens + self._from.n_shown
        error = error_of(problem, self.endpoint.site)
        what = "fell silent" if problem.code == SILENT else "broke off"
        raise EngineFailed(
            f"the endpoint {what} after {n_tokens} tokens: {error.message}", hint=error.hint
        )

    def _unseen(self, delta: Delta | None) -> Delta | None:
        """A delta without what was handed out before the request was sent again.

        Raises:
            EngineFailed: The endpoint says something else than it did.
        """
        if delta is None or not (self._skip or self._n_skip):
            return delta
        n_chars = min(len(delta.text), len(self._skip))
        is_cut_short = delta.finish is not None and n_chars < len(self._skip)
        if is_cut_short or delta.text[:n_chars] != self._skip[:n_chars]:
            raise EngineFailed(
                "asked again after an interruption, the endpoint said something else than before",
                hint="interrupt only generations of engines that can suspend",
            )
        self._skip = self._skip[n_chars:]
        n_tokens = min(delta.n_tokens, self._n_skip)
        self._n_skip -= n_tokens
        if delta.finish is None and n_chars == len(delta.text) and n_tokens == delta.n_tokens:
            return None
        return replace(
            delta,
            text=delta.text[n_chars:],
            n_tokens=delta.n_tokens - n_tokens,
            logprobs=delta.logprobs[n_tokens:],
        )

    def _without_more_rows(self, delta: Delta) -> Delta:
        """A delta with as many alternatives as were asked for: some servers send the chosen token as one, always."""
        n_top = self.job.top_logprobs or 0
        if all(len(row.top) <= n_top for row in delta.logprobs):
            return delta
        rows = (msgspec.structs.replace(row, top=row.top[:n_top]) for row in delta.logprobs)
        return replace(delta, logprobs=tuple(rows))

    async def _hang_up(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.aclose()

    def _counted(self, delta: Delta) -> Delta:
        """Keep count of what is handed out."""
        now_s = perf_counter()
        if self._first_s is None:
            self._first_s = now_s
            self.counters.prefill_s += now_s - self._asked_s
        self.counters.n_generated_tokens += delta.n_tokens
        self._said.append(delta.text)
        self._n_said += delta.n_tokens
        if delta.text:
            self._n_shown = self._n_said
        if delta.usage is not None:
            self._is_finished = True
            self.counters.n_prompt_tokens += delta.usage.prompt_tokens
            self.counters.n_prompt_tokens_computed += (
                delta.usage.prompt_tokens - delta.usage.cached_tokens
            )
        return delta
