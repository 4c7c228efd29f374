"""A real engine without a model: for tests, demonstrations and measurements of everything around the engine.

It is deterministic: what it says follows from the prompt, the seed and its `Script` (`script.py`); canned replies follow
from the order of opening, too. It obeys `max_tokens`, stop strings, schemas, tool choices and `logit_bias` (-100 leaves a
token out, other values do nothing), counts tokens by `pieces.py`, keeps to its slots, and suspends and resumes exactly.
With a `Script` it takes its time and breaks when asked to.
"""

from collections.abc import Awaitable, Callable
from math import exp, log, sqrt
from time import monotonic
from zlib import crc32

import anyio
import msgspec
from anyio.lowlevel import checkpoint
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.types import (
    Alternative,
    TokenLogprob,
    Usage,
)
from aios.engine import pieces
from aios.engine.abilities import check_abilities, needed_abilities
from aios.engine.base import (
    Ability,
    Capabilities,
    ChatPrompt,
    Delta,
    EngineStatistics,
    Job,
    Suspended,
    TextPrompt,
)
from aios.engine.script import Plan, Reply, Script, default_reply, plan_of, text_of_calls
from aios.errors import (
    ContextWindowExceeded,
    EngineFailed,
    EngineUnavailable,
    ResourceExhausted,
    SnapshotIncompatible,
)
from aios.readers import convert, from_msgpack

ABILITIES = frozenset(Ability) - {Ability.IMAGES}
MESSAGE_TOKENS = 4
"""What a message costs beside its text, as a chat template would."""
DIMENSIONS = 64
TOKENS_A_STEP = 20_000
"""Pieces that `tokenize` cuts before it lets others run."""


class _Saved(Struct, frozen=True):
    """Suspended state: the plan, and how much of it was read."""

    plan: Plan
    n_read: int


class ScriptedEngine:
    """An engine that follows a script.

    Args:
        model: Its name.
        n_slots: Sequences at once.
        window_tokens: Prompt and output of one sequence.
        script: What it says; the default rule when None.
        tokens_per_read: The most that one read hands out when there are no delays.
        abilities: What it owns up to; take some away to test what happens without them.
        now_s: The clock that delays are measured by.
        sleep: Waits that long by that clock.
    """

    def __init__(
        self,
        *,
        model: str = "scripted",
        n_slots: int = 8,
        window_tokens: int = 8192,
        script: Script | None = None,
        tokens_per_read: int = 8,
        abilities: frozenset[Ability] = ABILITIES,
        now_s: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.script = script or Script()
        self.tokens_per_read = max(1, tokens_per_read)
        self.now_s = now_s
        self.sleep = sleep
        self._capabilities = Capabilities(
            model=model,
            window_tokens=window_tokens,
            n_slots=n_slots,
            abilities=abilities,
            fingerprint=f"scripted:{model}",
            note="no model: it makes up sentences; simple patterns and schemas only",
        )
        self._replies = iter(self.script.replies)
        self._running: set[ScriptedSequence] = set()
        self._is_closed = False
        self._n_sequences = 0
        self._n_prompt_tokens = 0
        self.n_generated_tokens = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def start(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        self._is_closed = True
        for sequence in tuple(self._running):
            sequence.end("the engine was closed")
        await checkpoint()

    async def open(self, job: Job, suspended: Suspended | None = None) -> "ScriptedSequence":
        self._check_open()
        if len(self._running) >= self._capabilities.n_slots:
            raise ResourceExhausted(
                f"all {self._capabilities.n_slots} slots are taken", hint="close a sequence first"
            )
        if suspended is None:
            check_abilities(needed_abilities(job), self._capabilities)
            plan = self._plan(job)
            n_begun = 0 if job.begun is None else len(job.begun.tokens)
            saved = _Saved(plan, min(n_begun, len(plan.pieces)))
            self._n_sequences += 1
            self._n_prompt_tokens += saved.plan.n_prompt
        else:
            saved = self._saved(suspended)
        sequence = ScriptedSequence(self, job, saved.plan, saved.n_read)
        self._running.add(sequence)
        return sequence

    def drop(self, suspended: Suspended) -> None:
        """Nothing to do: a plan takes no room."""

    async def dump(self, suspended: Suspended) -> bytes:
        await checkpoint()
        check_abilities(frozenset({Ability.SNAPSHOT}), self._capabilities)
        self._saved(suspended)
        return msgspec.msgpack.encode(suspended)

    def load(self, data: bytes) -> Suspended:
        check_abilities(frozenset({Ability.SNAPSHOT}), self._capabilities)
        try:
            raw = from_msgpack(data, Suspended)
            suspended = replace(raw, state=convert(raw.state, _Saved))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SnapshotIncompatible("these bytes are no suspended generation") from error
        self._saved(suspended)
        return suspended

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        self._check_open()
        check_abilities(frozenset({Ability.EMBED}), self._capabilities)
        vectors: list[tuple[float, ...]] = []
        n_tokens = 0
        for text in texts:
            n_tokens += self._fitting(text, 0)
            vectors.append(_vector(text))
            await checkpoint()
        return tuple(vectors), Usage(prompt_tokens=n_tokens)

    async def tokenize(self, text: str) -> tuple[int, ...]:
        self._check_open()
        check_abilities(frozenset({Ability.TOKENIZE}), self._capabilities)
        ids: list[int] = []
        for piece in pieces.iter_pieces(text):
            ids.append(pieces.piece_id(piece))
            if len(ids) % TOKENS_A_STEP == 0:
                await checkpoint()
        return tuple(ids)

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        self._check_open()
        check_abilities(frozenset({Ability.TOKENIZE}), self._capabilities)
        await checkpoint()
        return _count_prompt(prompt)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            n_running=len(self._running),
            n_sequences=self._n_sequences,
            n_prompt_tokens=self._n_prompt_tokens,
            n_prompt_tokens_computed=self._n_prompt_tokens,
            n_generated_tokens=self.n_generated_tokens,
        )

    def free(self, sequence: "ScriptedSequence") -> None:
        """Called by a sequence that leaves its slot."""
        self._running.discard(sequence)

    def prompt_ids(self, job: Job) -> tuple[int, ...]:
        """The ids of a prompt's text, for `Suspended.tokens`."""
        texts = (
            (job.prompt.text,)
            if isinstance(job.prompt, TextPrompt)
            else tuple(message.text() for message in job.prompt.messages)
        )
        return tuple(pieces.piece_id(piece) for text in texts for piece in pieces.split(text))

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineUnavailable("the scripted engine is closed", hint="open another")

    def _fitting(self, text: str, n_output: int) -> int:
        """The tokens of a text that must fit into the window together with `n_output` more."""
        window = self._capabilities.window_tokens
        n_tokens = pieces.at_least(text)
        if n_tokens + n_output <= window:
            n_tokens = pieces.count(text)
        if n_tokens + n_output > window:
            raise _over_window(n_tokens, window)
        return n_tokens

    def _plan(self, job: Job) -> Plan:
        window = self._capabilities.window_tokens
        if isinstance(job.prompt, TextPrompt):
            n_prompt = self._fitting(job.prompt.text, 1)
        else:
            n_prompt = _count_prompt(job.prompt, stop_at=window)
            if n_prompt >= window:
                raise _over_window(n_prompt, window)
        n_free = window - n_prompt
        n_max = n_free if job.max_tokens is None else min(job.max_tokens, n_free)
        reply, n_wanted = self._reply(job, n_max)
        if reply.fail_after_tokens is None and self.script.fail_after_tokens is not None:
            reply = replace(reply, fail_after_tokens=self.script.fail_after_tokens)
        return plan_of(reply, job, n_max=n_max, n_wanted=n_wanted, n_prompt=n_prompt)

    def _reply(self, job: Job, n_max: int) -> tuple[Reply, int | None]:
        """What to say, and to how many tokens a default answer is cut."""
        said: str | Reply | None = next(self._replies, None)
        if said is None and self.script.answer is not None:
            said = self.script.answer(job)
        if said is not None:
            return (said if isinstance(said, Reply) else Reply(said)), None
        n_wanted = self.script.answer_tokens
        made = default_reply(job, n_tokens=min(n_wanted, n_max))
        is_prose = not made.tool_calls and job.constraint is None
        return made, n_wanted if n_wanted and is_prose else None

    def _saved(self, suspended: Suspended) -> _Saved:
        is_ours = suspended.fingerprint == self._capabilities.fingerprint
        if not is_ours or not isinstance(suspended.state, _Saved):
            raise SnapshotIncompatible(
                f"suspended by `{suspended.fingerprint}`; this engine is `{self._capabilities.fingerprint}`",
                hint="resume where it was suspended",
            )
        return suspended.state


class ScriptedSequence:
    """A generation that follows its plan. `read` is safe to cancel: nothing is lost."""

    def __init__(self, engine: ScriptedEngine, job: Job, plan: Plan, n_read: int) -> None:
        self._engine = engine
        self._job = job
        self._plan = plan
        self._n_read = n_read
        self._is_finished = False
        self._ended = ""
        self._reading: anyio.CancelScope | None = None
        script = engine.script
        self._delay_s = script.token_delay_s
        self._is_timed = script.token_delay_s > 0 or script.prompt_token_delay_s > 0
        if self._is_timed:
            prefill_s = 0.0 if n_read else script.prompt_token_delay_s * plan.n_prompt
            self._first_due_s = engine.now_s() + prefill_s - n_read * self._delay_s

    @property
    def usage(self) -> Usage:
        return Usage(self._plan.n_prompt, 0, self._n_read) if self._n_read else Usage()

    async def read(self) -> Delta:
        if self._ended or self._is_finished:
            raise EngineUnavailable(self._ended or "the sequence has brought its last delta")
        if self._is_timed:
            await self._wait_due()
        else:
            await checkpoint()
        if self._ended:
            raise EngineUnavailable(self._ended)
        return self._advance()

    async def suspend(self) -> Suspended:
        if self._ended:
            raise EngineUnavailable(self._ended)
        plan, n_read = self._plan, self._n_read
        self.end("the sequence was suspended")
        return Suspended(
            fingerprint=self._engine.capabilities.fingerprint,
            n_generated=n_read,
            tokens=self._engine.prompt_ids(self._job)
            + tuple(pieces.piece_id(piece) for piece in plan.pieces[:n_read]),
            emitted="".join(plan.texts[:n_read]),
            state=_Saved(plan, n_read),
        )

    async def close(self) -> None:
        self.end("the sequence is closed")

    def end(self, reason: str) -> None:
        """Leave the slot; whoever is reading gets `EngineUnavailable`. Twice is nothing."""
        if not self._ended:
            self._ended = reason
            self._engine.free(self)
            if self._reading is not None:
                self._reading.cancel()

    async def _wait_due(self) -> None:
        """Wait until at least one more token is due, or the end of an answer without any."""
        next_token = min(self._n_read + 1, len(self._plan.pieces))
        wait_s = self._first_due_s + next_token * self._delay_s - self._engine.now_s()
        with anyio.CancelScope() as self._reading:
            await (self._engine.sleep(wait_s) if wait_s > 0 else checkpoint())
        self._reading = None

    def _n_due(self) -> int:
        if not self._is_timed:
            return self._n_read + self._engine.tokens_per_read
        if self._delay_s <= 0:
            return len(self._plan.pieces)
        passed_s = self._engine.now_s() - self._first_due_s
        return max(self._n_read + 1, int(passed_s / self._delay_s + 1e-9))

    def _advance(self) -> Delta:
        plan, start = self._plan, self._n_read
        n_all = len(plan.pieces)
        end = min(self._n_due(), n_all)
        if plan.fail_after_tokens is not None:
            if start >= plan.fail_after_tokens:
                raise EngineFailed(
                    f"the script breaks the engine after {plan.fail_after_tokens} tokens"
                )
            end = min(end, plan.fail_after_tokens)
        self._n_read = end
        self._engine.n_generated_tokens += end - start
        text = "".join(plan.texts[start:end])
        rows = self._logprobs(start, end) if self._job.top_logprobs is not None else ()
        if end < n_all or (plan.fail_after_tokens is not None and end >= plan.fail_after_tokens):
            return Delta(text, end - start, rows, tokens=tuple(range(start, end)))
        self._is_finished = True
        usage = Usage(prompt_tokens=plan.n_prompt, completion_tokens=n_all)
        return Delta(text, end - start, rows, plan.tool_calls, plan.finish, usage)

    def _logprobs(self, start: int, end: int) -> tuple[TokenLogprob, ...]:
        n_top = self._job.top_logprobs or 0
        shown = self._plan.pieces[start : min(end, self._plan.n_rows)]
        return tuple(_logprob(piece, n_top) for piece in shown)


def _count_prompt(prompt: ChatPrompt, *, stop_at: int | None = None) -> int:
    """Tokens of a conversation; stops counting once it is known to be over `stop_at`."""
    texts = [message.text() for message in prompt.messages]
    texts += [
        text_of_calls(message.tool_calls) for message in prompt.messages if message.tool_calls
    ]
    texts += [f"{tool.name} {tool.description} {tool.parameters}" for tool in prompt.tools]
    n_tokens = MESSAGE_TOKENS * (len(prompt.messages) + 1)
    if stop_at is not None:
        at_least = n_tokens + sum(pieces.at_least(text) for text in texts)
        if at_least > stop_at:
            return at_least
    return n_tokens + sum(pieces.count(text) for text in texts)


def _over_window(n_tokens: int, window_tokens: int) -> ContextWindowExceeded:
    return ContextWindowExceeded(
        f"the prompt has at least {n_tokens} tokens; the window holds {window_tokens}, one of output included",
        hint="send less, or open the engine with a larger `engine.window_tokens`",
    )


def _logprob(piece: str, n_top: int) -> TokenLogprob:
    """A made-up log-probability: the chosen token is the likeliest, the others share what it leaves."""
    chosen = exp(-(pieces.piece_id(piece) % 997) / 1000)
    token_bytes = piece.encode("utf-8", "replace")
    top = [Alternative(piece, log(chosen), token_bytes)]
    rest = 1 - chosen if chosen < 1 else 1e-6
    for i in range(1, n_top):
        other = f" {i}"
        rest /= 2
        top.append(Alternative(other, log(min(rest, chosen)), other.encode()))
    return TokenLogprob(piece, log(chosen), token_bytes, tuple(top[:n_top]))


def _vector(text: str) -> tuple[float, ...]:
    """A vector of length 1 in which texts with the same words are near each other."""
    sums = [0.0] * DIMENSIONS
    for word in text.lower().split():
        mixed = crc32(word.encode("utf-8", "surrogatepass")) * 0x9E3779B1 & 0xFFFFFFFF
        sums[mixed >> 26] += 1.0 if mixed >> 25 & 1 else -1.0
    length = sqrt(sum(value * value for value in sums))
    if length == 0:
        return (1.0, *(0.0 for _ in range(DIMENSIONS - 1)))
    return tuple(value / length for value in sums)
