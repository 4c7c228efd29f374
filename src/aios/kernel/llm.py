"""Model calls: from a chat call to an engine's sequence and back, under turns.

A generation holds a turn while it occupies an engine's slot. When its turn must end (its process was stopped, or
somebody better waits) the sequence is suspended and goes on in a later turn where it was. Where it cannot, a stopped generation
keeps its slot until it is whole: it is read on, for an endpoint that is hung up on would be asked for all of it again, and what
that brings is told once the process goes on.

A generation that its engine fails begins anew on the next engine that may serve it, unless pieces of it were handed out.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
import anyio.abc
import msgspec
from msgspec.structs import replace

from aios.abi.calls import (
    Chat,
    ChatAnswer,
    Complete,
    CompleteAnswer,
    CountTokens,
    Embed,
    Embeddings,
    TokenCount,
    Tokenize,
    Tokens,
)
from aios.abi.gate import Token
from aios.abi.types import (
    Message,
    Pid,
    Role,
    Sampling,
    Usage,
)
from aios.engine.abilities import can_go_on, needed_abilities
from aios.engine.base import (
    EMBED_BATCH,
    MESSAGE_CHARS,
    Ability,
    Capabilities,
    ChatPrompt,
    Delta,
    Engine,
    Job,
    Sequence,
    Suspended,
    TextPrompt,
)
from aios.errors import (
    AiosError,
    CallerError,
    EngineFailed,
    EngineUnavailable,
    RateLimited,
    ResourceExhausted,
)
from aios.kernel.charge import charged, charged_texts
from aios.kernel.cores import Core, Cores, named_error
from aios.kernel.journal.streams import Stream
from aios.kernel.output import Output
from aios.kernel.pacing import Pacing
from aios.kernel.process import Run
from aios.kernel.router import Wish
from aios.kernel.scheduler.scheduler import Scheduler, Turn
from aios.kernel.spending import Budgets
from aios.kernel.toolgaps import ToolGaps

T = TypeVar("T")

CLOSE_GRACE_S = 5.0
BROKEN = (EngineFailed, EngineUnavailable)
"""Errors that an engine is to blame for."""
MOVING = (*BROKEN, RateLimited, ResourceExhausted)
"""Errors after which another engine may still serve the call."""
CHARS_A_TOKEN = 4
"""Of English text, roughly."""
USUAL_OUTPUT_TOKENS = 1024
"""What a call without `max_tokens` is taken to need."""
LONG_CHARS = 16_384
"""A text that is longer takes 20 ms or more to be counted."""
VECTOR_CHARS = 4_096
"""Texts of so many characters are turned into vectors in one go, which takes some seconds; a longer one alone."""


class ModelCalls:
    """The handlers of all calls that need a model."""

    def __init__(
        self, scheduler: Scheduler, cores: Cores, budgets: Budgets, gaps: ToolGaps
    ) -> None:
        self._scheduler = scheduler
        self._gaps = gaps
        self._cores = cores
        self._budgets = budgets
        self._counting: dict[Pid, anyio.Lock] = {}
        self._pacing = Pacing(
            scheduler.clock, lambda owner: scheduler.policy.config.weights.get(owner, 1.0)
        )

    async def chat(self, run: Run, call: Chat) -> ChatAnswer:
        """Write the next message of a conversation."""
        core, output = await self._generate(run, call)
        assert output.finish is not None
        message = Message(Role.ASSISTANT, "".join(output.text), tuple(output.tool_calls))
        return ChatAnswer(message, output.finish, output.usage, core.model, tuple(output.logprobs))

    async def complete(self, run: Run, call: Complete) -> CompleteAnswer:
        """Go on with a text."""
        core, output = await self._generate(run, call)
        assert output.finish is not None
        text = "".join(output.text)
        return CompleteAnswer(text, output.finish, output.usage, core.model, tuple(output.logprobs))

    async def embed(self, run: Run, call: Embed) -> Embeddings:
        """Turn texts into vectors; between some and the next the turn may end, and go to somebody better who waits."""
        core = await self._cores.find(run, _same_model(call.model, Ability.EMBED))
        try:
            with self._told(core):
                vectors, usage = await self._embed_on(core, run, call.texts)
        finally:
            await run.runnable()  # how it ended is told to no stopped process
        self._cores.note_served(core, run, call.model, Usage())
        return Embeddings(vectors, usage, core.model)

    async def tokenize(self, run: Run, call: Tokenize) -> Tokens:
        """Cut a text into tokens."""
        core = await self._cores.find(run, _same_model(call.model, Ability.TOKENIZE))
        async with self.counting(run, core, len(call.text)):
            with self._told(core), core.in_use() as engine:
                return Tokens(await engine.tokenize(call.text), core.model)

    async def count_tokens(self, run: Run, call: CountTokens) -> TokenCount:
        """Count the tokens of a conversation."""
        core = await self._cores.find(run, _same_model(call.model, Ability.TOKENIZE))
        prompt = ChatPrompt(call.messages, call.tools)
        async with self.counting(run, core, prompt.n_chars()):
            with self._told(core), core.in_use() as engine:
                n_tokens = await engine.count_tokens(prompt)
                return TokenCount(n_tokens, engine.capabilities.window_tokens, core.model)

    @asynccontextmanager
    async def counting(self, run: Run, core: Core, n_chars: int) -> AsyncIterator[None]:
        """Count a text in the block. Of the long ones of a process one is counted at a time, so others wait for no more of them.

        Who waits is parked, so `stop` waits for one of them at most, too. An endpoint counts as many at once as it likes, and `stop`
        waits for none of them.
        """
        if core.is_remote:
            try:
                with run.holding(lambda _: None):
                    yield
            finally:
                await run.runnable()
            return
        if n_chars <= LONG_CHARS:
            yield
            return
        pid = run.process.pid
        turn = self._counting.setdefault(pid, anyio.Lock())
        try:
            with run.parked():
                await turn.acquire()
            try:
                await run.runnable()
                yield
            finally:
                turn.release()
        finally:
            if not turn.locked():
                self._counting.pop(pid, None)

    async def _embed_on(
        self, core: Core, run: Run, texts: tuple[str, ...]
    ) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        n_tokens = sum(map(len, texts)) // CHARS_A_TOKEN
        parts = _by_request(texts) if core.is_remote else _some_at_a_time(texts)
        vectors: list[tuple[float, ...]] = []
        usage = Usage()
        async with (
            charged_texts(self._budgets, run, core, texts, counting=self.counting) as note_begun,
            self._pacing.permit(run, core.config.rate, n_tokens) as permit,
            self._scheduler.turn(
                run, core.resource, n_prompt_tokens=n_tokens, is_preemptible=False
            ) as turn,
        ):
            for part in parts:
                while turn.must_yield:
                    await turn.renew()
                with core.in_use() as engine:
                    note_begun()
                    permit.n_used = max(1, n_tokens)
                    found, used = await _embedded(turn, engine, part)
                vectors += found
                usage += used
                run.process.usage += used
        return tuple(vectors), usage

    async def _generate(self, run: Run, call: Chat | Complete) -> tuple[Core, Output]:
        """Write what a call asks for; before and after, its agent is elsewhere."""
        job = job_of(call)
        stream = run.streams.open(job) if run.streams is not None else None
        job = replace(job, sampling=_seeded(call.sampling, stream))
        with self._gaps.call(run) as answer:
            core, output = await self._serve(run, call, job, stream)
            answer.tools = tuple(dict.fromkeys(each.name for each in output.tool_calls))
            answer.pages = output.pages
            answer.fingerprint = core.offer.fingerprint if core.offer is not None else ""
        return core, output

    async def _serve(
        self, run: Run, call: Chat | Complete, job: Job, stream: Stream | None
    ) -> tuple[Core, Output]:
        """On one engine after the other, until one serves it or it cannot be begun anew. What becomes of it is told to no stopped process."""
        wish = Wish(call.model, needed_abilities(job), call.may_move)
        tried: dict[str, AiosError] = {}
        while True:
            core, output = await self._cores.find(run, wish, tried), Output(stream=stream)
            failure: AiosError | None = None
            try:
                with self._told(core):
                    async with charged(
                        self._budgets, run, core, job, counting=self.counting, used=output.spent
                    ) as fitted:
                        await self._generate_on(core, run, fitted, output)
            except AiosError as error:
                failure = error
            await run.runnable()
            if isinstance(failure, MOVING) and call.may_move and not output.is_handed_out:
                tried[core.name] = failure
                continue
            output.say(run)
            if failure is not None:
                raise failure
            self._cores.note_served(core, run, call.model, output.usage)
            if not run.is_background:  # a summary's pages are nobody's context
                run.pages = run.process.pages = output.pages
            return core, output

    async def _generate_on(self, core: Core, run: Run, job: Job, output: Output) -> None:
        engine: Engine | None = None
        suspended: Suspended | None = None
        n_prompt = _about_tokens(job.prompt)
        # An endpoint that has told nothing yet may have computed all of it; others tell at once.
        n_unknown = n_prompt if core.is_remote else 0
        n_tokens = n_prompt + (job.max_tokens or USUAL_OUTPUT_TOKENS)
        async with (
            self._pacing.permit(run, core.config.rate, n_tokens) as permit,
            self._turn(run, core, job, n_prompt=n_prompt) as turn,
        ):
            try:
                while not output.is_done:
                    if turn.must_yield:
                        await turn.renew()
                        continue
                    with core.in_use() as engine:
                        suspended = await self._take_turn(
                            engine, job, turn, output=output, suspended=suspended
                        )
            except (CallerError, RateLimited):
                n_unknown = 0  # refused: nothing of it was computed
                raise
            finally:
                run.process.usage += output.uncounted()
                turn.spend(output.n_uncharged(n_unknown))
                permit.n_used = output.n_used(n_prompt)
                if suspended is not None and engine is not None:
                    engine.drop(suspended)  # it was killed, cancelled or failed while it waited

    @contextmanager
    def _told(self, core: Core) -> Iterator[None]:
        """Failures of the engine are noted, and name it."""
        try:
            yield
        except BROKEN as error:
            self._cores.note_failure(core, error)
            raise named_error(core.name, error) from error

    async def _take_turn(
        self, engine: Engine, job: Job, turn: Turn, *, output: Output, suspended: Suspended | None
    ) -> Suspended | None:
        """Generate until the output is done (then None) or the turn must end."""
        if not output.is_begun:
            job = _going_on(engine, job, turn.run, output)
        output.is_begun = True
        if turn.is_urgent != job.is_urgent:
            job = replace(job, is_urgent=turn.is_urgent)
        sequence = await _asked(turn.run, engine, engine.open(job, suspended))
        try:
            if _is_whole(engine.capabilities, job):
                with turn.run.holding(lambda _: output.say(turn.run)):
                    await self._drain(sequence, turn, output)
                return None
            # What is there already would be read without a pause, and so not be cut off.
            if not turn.must_yield:
                with turn.interruptible():
                    await self._drain(sequence, turn, output)
                    return None
            turn.run.n_preemptions += 1
            return await sequence.suspend()
        finally:
            output.usage_so_far = sequence.usage
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE_S):
                await sequence.close()

    async def _drain(self, sequence: Sequence, turn: Turn, output: Output) -> None:
        """Read a sequence to its end, accounting for every piece and handing it on."""
        run = turn.run
        while True:
            delta = await sequence.read()
            output.add(delta)
            output.unsaid.append(delta)
            run.process.usage += Usage(completion_tokens=delta.n_tokens)
            turn.spend(delta.n_tokens)
            output.say(run)
            if delta.finish is not None:
                turn.spend(output.usage.prompt_tokens - output.usage.cached_tokens)
                return

    def _turn(
        self, run: Run, core: Core, job: Job, *, n_prompt: int
    ) -> AbstractAsyncContextManager[Turn]:
        window = core.engine.capabilities.window_tokens if core.engine is not None else 0
        n_context = n_prompt + (job.max_tokens or USUAL_OUTPUT_TOKENS)
        return self._scheduler.turn(
            run,
            core.resource,
            n_prompt_tokens=n_prompt,
            n_context_tokens=min(n_context, window) if window else n_context,
            is_whole=core.offer is not None and _is_whole(core.offer, job),
        )


def job_of(call: Chat | Complete) -> Job:
    """What a call asks of an engine."""
    if isinstance(call, Chat):
        prompt: ChatPrompt | TextPrompt = ChatPrompt(call.messages, call.tools, call.tool_choice)
    else:
        prompt = TextPrompt(call.prompt)
    return Job(
        prompt=prompt,
        sampling=call.sampling,
        max_tokens=call.max_tokens,
        stop=call.stop,
        constraint=call.constraint,
        top_logprobs=call.top_logprobs if call.logprobs else None,
    )


def _going_on(engine: Engine, job: Job, run: Run, output: Output) -> Job:
    """The job, behind what a kernel before this one had of it; that is handed on at once, and nobody computes it again."""
    begun = output.stream.begin(engine.capabilities, job) if output.stream is not None else None
    if begun is None:
        return job
    n_tokens = len(begun.tokens)
    output.add(Delta(begun.text, n_tokens))
    run.process.usage += Usage(completion_tokens=n_tokens)
    if run.emit is not None and begun.text:
        output.is_handed_out = True
        run.emit(Token(begun.text, n_tokens))
    return replace(job, begun=begun)


def _is_whole(offer: Capabilities, job: Job) -> bool:
    """Whether a job that is cut off would be begun anew."""
    if Ability.SUSPEND not in offer.abilities:
        return True
    return offer.is_resumed_from_text and not can_go_on(job)


async def _asked(run: Run, engine: Engine, asked: Awaitable[T]) -> T:
    """What an engine answers. Of an endpoint no stop cuts it off or waits for it; who asks tells no stopped process of it."""
    if not engine.capabilities.is_resumed_from_text:
        return await asked
    with run.holding(lambda _: None):
        return await asked


async def _embedded(
    turn: Turn, engine: Engine, texts: tuple[str, ...]
) -> tuple[tuple[tuple[float, ...], ...], Usage]:
    """The vectors of texts, which are charged to the turn; also where it is cut off, for they may have been computed."""
    n_tokens = sum(map(len, texts)) // CHARS_A_TOKEN
    try:
        vectors, used = await _asked(turn.run, engine, engine.embed(texts))
        n_tokens = used.prompt_tokens or n_tokens
    except (CallerError, RateLimited):
        n_tokens = 0  # refused: nothing of it was computed
        raise
    finally:
        turn.spend(n_tokens)
    return vectors, used


def _about_tokens(prompt: ChatPrompt | TextPrompt) -> int:
    """About how many tokens a prompt has: the scheduler must know before anybody has the time to count them."""
    n_chars = len(prompt.text) if isinstance(prompt, TextPrompt) else prompt.n_chars()
    return n_chars // CHARS_A_TOKEN


def _by_request(texts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The texts in order, as many at a time as an endpoint gets in a request: it has turns enough, and counts requests."""
    for start in range(0, len(texts), EMBED_BATCH):
        yield texts[start : start + EMBED_BATCH]


def _some_at_a_time(texts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The texts in order, `VECTOR_CHARS` at a time, where each counts as a message does."""
    start = n_chars = 0
    for end, text in enumerate(texts):
        n_text = len(text) + MESSAGE_CHARS
        if n_chars and n_chars + n_text > VECTOR_CHARS:
            yield texts[start:end]
            start, n_chars = end, 0
        n_chars += n_text
    yield texts[start:]


def _same_model(model: str, needs: Ability) -> Wish:
    """Tokens and vectors of another model would be of no use: such calls do not move."""
    return Wish(model, frozenset({needs}), may_fall_back=False)


def _seeded(sampling: Sampling, stream: Stream | None) -> Sampling:
    """Draw a seed where the agent gave none, so that an interrupted generation can be repeated; one that goes on keeps its own."""
    seed = sampling.seed if stream is None else stream.seed
    if seed is None:
        seed = secrets.randbits(63)
    if stream is not None:
        stream.seed = seed
    return msgspec.structs.replace(sampling, seed=seed)
