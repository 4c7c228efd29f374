"""Any endpoint that speaks OpenAI's API: vLLM, SGLang, llama-server, Ollama, the clouds, another AIOS.

`start` reads the list of models: that tells whether the endpoint is there, whether the key is good, which server it is
(`dialect.py`) and how large its window is. A generation is one streamed request (`sequence.py`).

Suspending: a sequence is taken out of its slot as the text so far, and resumed by having the endpoint go on from that text
(`GoingOn`). vLLM is known to do so, llama-server is asked, others are told of by `engine.going_on`; where nobody says so the
engine lacks the ability. Under a temperature the random numbers begin anew then: it is a continuation, not always the one
that would have come. Under a constraint or with tools there is no going on from the middle: such a job is never taken out.
"""

import re
from math import isfinite, sqrt
from typing import NoReturn

import httpx
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.types import JsonObject, Usage
from aios.config import EngineConfig
from aios.engine.abilities import check_abilities, needed_abilities
from aios.engine.base import (
    EMBED_BATCH,
    Ability,
    Capabilities,
    ChatPrompt,
    EngineStatistics,
    Job,
    Suspended,
)
from aios.engine.remote.chunks import count_of
from aios.engine.remote.dialect import Dialect, GoingOn
from aios.engine.remote.endpoint import Answer, Endpoint, Patience
from aios.engine.remote.governor import Governor, Governors
from aios.engine.remote.problems import Problem, error_of
from aios.engine.remote.sequence import Counters, Emitted, RemoteSequence
from aios.engine.remote.survey import Survey, survey
from aios.engine.remote.tokens import count_chat, tokenize_text
from aios.errors import (
    EngineFailed,
    EngineUnavailable,
    ResourceExhausted,
    SnapshotIncompatible,
    Unsupported,
)
from aios.readers import Reader

MAX_EMBEDDINGS_BYTES = 256 << 20
NO_ROUTE = frozenset({404, 405, 501})

_NO_EMBEDDINGS = re.compile(
    r"does not support|not supported|not (?:an? )?embedding|embeddings? (?:is|are) (?:not|disabled)",
    re.IGNORECASE,
)


class _Vector(Struct):
    embedding: list[float]
    index: int


class _EmbedUsage(Struct):
    prompt_tokens: int = 0


class _Vectors(Struct):
    data: list[_Vector]
    usage: _EmbedUsage | None = None


_vectors = Reader(msgspec.json.Decoder, _Vectors)


class OpenAIEngine:
    """An engine behind an OpenAI-compatible base URL.

    Args:
        name: What the kernel calls it.
        config: Address, model, slots, time-outs.
        api_key: The endpoint's key; None for endpoints that want none.
        transport: Instead of the network.
        governors: Where the governor of this address and key is shared; its own when None.

    Raises:
        ConfigError: The base URL or the key cannot be used.
    """

    def __init__(
        self,
        *,
        name: str,
        config: EngineConfig,
        api_key: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
        governors: Governors | None = None,
    ) -> None:
        self.name = name
        self._config = config
        governor = governors.get_governor(config.base_url, api_key) if governors else Governor()
        self._endpoint = Endpoint(
            config=config, api_key=api_key, governor=governor, transport=transport
        )
        self._dialect = Dialect()
        self._survey: Survey | None = None
        self._lost: set[Ability] = set()
        self._running: set[RemoteSequence] = set()
        self._counters = Counters()
        self._is_closed = False

    @property
    def capabilities(self) -> Capabilities:
        found = self._found()
        model_and_host = f"openai:{self._endpoint.site.host}:{found.model}"
        return Capabilities(
            model=found.model,
            window_tokens=found.window_tokens,
            n_slots=self._config.n_slots,
            abilities=found.abilities - self._lost,
            fingerprint=model_and_host,
            note=self._note(found),
            is_resumed_from_text=True,
        )

    async def start(self) -> None:
        self._check_open()
        self._survey = await survey(self._endpoint, self._config)
        self._dialect = Dialect(
            self._survey.flavour, self._survey.regex_field, self._survey.going_on
        )

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for sequence in tuple(self._running):
            await sequence.end("the engine was closed")
        await self._endpoint.aclose()

    async def open(self, job: Job, suspended: Suspended | None = None) -> RemoteSequence:
        capabilities = self.capabilities
        self._check_open()
        check_abilities(needed_abilities(job), capabilities)
        before = self._emitted(suspended, capabilities)
        if len(self._running) >= capabilities.n_slots:
            raise ResourceExhausted(
                f"all {capabilities.n_slots} slots are taken", hint="close a sequence first"
            )
        # What cannot be put in words is refused before anything is sent.
        self._body(job, Emitted(), self._dialect)

        async def ask(said: Emitted, patience: Patience) -> Answer:
            return await self._ask(job, said, patience)

        sequence = RemoteSequence(
            job=job,
            before=before,
            endpoint=self._endpoint,
            ask=ask,
            release=self._running.discard,
            counters=self._counters,
            timeout_s=self._config.timeout_s,
            patience=Patience(self._config.n_retries),
            fingerprint=capabilities.fingerprint
            if Ability.SUSPEND in capabilities.abilities
            else "",
            may_echo=self._dialect.going_on is GoingOn.TRAILING
            and isinstance(job.prompt, ChatPrompt),
        )
        self._running.add(sequence)
        try:
            await sequence.connect()
        except BaseException:
            await sequence.end("it could not be opened")
            raise
        if suspended is None:
            self._counters.n_sequences += 1
        return sequence

    def drop(self, suspended: Suspended) -> None:
        """Nothing to do: an endpoint keeps nothing for it."""

    async def dump(self, suspended: Suspended) -> bytes:
        raise self._no_snapshots(suspended.fingerprint)

    def load(self, data: bytes) -> Suspended:
        raise self._no_snapshots(f"{len(data)} bytes")

    def _no_snapshots(self, what: str) -> Unsupported:
        return Unsupported(
            f"{what}: a remote generation cannot be kept as bytes",
            hint="keep the conversation, and ask again",
        )

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        check_abilities(frozenset({Ability.EMBED}), self.capabilities)
        self._check_open()
        vectors: list[tuple[float, ...]] = []
        n_tokens = 0
        for start in range(0, len(texts), EMBED_BATCH):
            batch = texts[start : start + EMBED_BATCH]
            answer = await self._embed_batch(batch)
            vectors += _in_order(answer, len(batch), self._endpoint.site.host)
            n_tokens += count_of(answer.usage.prompt_tokens) if answer.usage else 0
        return tuple(vectors), Usage(prompt_tokens=n_tokens)

    async def tokenize(self, text: str) -> tuple[int, ...]:
        check_abilities(frozenset({Ability.TOKENIZE}), self.capabilities)
        self._check_open()
        found = self._found()
        return await tokenize_text(self._endpoint, found.flavour, model=found.model, text=text)

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        check_abilities(frozenset({Ability.TOKENIZE}), self.capabilities)
        self._check_open()
        found = self._found()
        return await count_chat(self._endpoint, found.flavour, model=found.model, prompt=prompt)

    def statistics(self) -> EngineStatistics:
        counters, governor = self._counters, self._endpoint.governor.statistics()
        return EngineStatistics(
            n_running=len(self._running),
            n_sequences=counters.n_sequences,
            n_prompt_tokens=counters.n_prompt_tokens,
            n_prompt_tokens_computed=counters.n_prompt_tokens_computed,
            n_generated_tokens=counters.n_generated_tokens,
            prefill_s=counters.prefill_s,
            decode_s=counters.decode_s,
            extra={
                "n_retries": governor.n_retries,
                "n_throttled": governor.n_throttled,
                "n_waiting": governor.n_waiting,
                "concurrency_limit": governor.concurrency_limit,
            },
        )

    def _found(self) -> Survey:
        if self._survey is None:
            raise EngineUnavailable(
                "the engine has not been started", hint="await its `start` first"
            )
        return self._survey

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineUnavailable("the engine is closed", hint="open another")

    def _note(self, found: Survey) -> str:
        notes = [f"{found.flavour.value} at {self._endpoint.site.host}"]
        if Ability.SUSPEND in found.abilities:
            notes.append("a preempted generation goes on from its text")
        if self._dialect.dropped:
            notes.append(
                f"it refuses, so no longer sent: {', '.join(sorted(self._dialect.dropped))}"
            )
        if self._endpoint.sends_key_in_clear:
            notes.append("the key travels unencrypted; use https")
        return "; ".join(notes)

    def _emitted(self, suspended: Suspended | None, capabilities: Capabilities) -> Emitted:
        if suspended is None:
            return Emitted()
        if suspended.fingerprint != capabilities.fingerprint or not isinstance(
            suspended.state, Emitted
        ):
            raise SnapshotIncompatible(
                f"suspended by `{suspended.fingerprint}`; this engine is `{capabilities.fingerprint}`",
                hint="resume where it was suspended",
            )
        return suspended.state

    def _body(self, job: Job, before: Emitted, dialect: Dialect) -> tuple[str, JsonObject]:
        """Route and body of a generation."""
        model = self._found().model
        if job.max_tokens is not None:
            job = replace(job, max_tokens=job.max_tokens - before.n_shown)
        if isinstance(job.prompt, ChatPrompt):
            return "/chat/completions", dialect.chat_body(
                job, job.prompt, model=model, said=before.text
            )
        return "/completions", dialect.text_body(job, job.prompt, model=model, said=before.text)

    async def _ask(self, job: Job, before: Emitted, patience: Patience) -> Answer:
        dialect = self._dialect.copy()
        route, body = self._body(job, before, dialect)

        def rewritten() -> JsonObject:
            nonlocal body
            _, body = self._body(job, before, dialect)
            return body

        answer = await self._endpoint.try_send(
            "POST",
            self._endpoint.base_url + route,
            body=rewritten,
            mend=lambda problem: dialect.mend(problem, body),
            patience=patience,
        )
        if isinstance(answer, Answer):
            self._dialect.learn(dialect)
            return answer
        if answer.status in NO_ROUTE and route == "/completions":
            self._lose(Ability.COMPLETE, answer)
        raise error_of(answer, self._endpoint.site)

    async def _embed_batch(self, texts: tuple[str, ...]) -> _Vectors:
        body: JsonObject = {
            "model": self._found().model,
            "input": list(texts),
            "encoding_format": "float",
        }
        url = f"{self._endpoint.base_url}/embeddings"
        answer = await self._endpoint.try_fetch(
            "POST", url, max_bytes=MAX_EMBEDDINGS_BYTES, body=lambda: body
        )
        if isinstance(answer, Problem):
            is_told = answer.status == 400 and not answer.is_about_window
            if answer.status in NO_ROUTE or (is_told and _NO_EMBEDDINGS.search(answer.message)):
                self._lose(Ability.EMBED, answer)
            raise error_of(answer, self._endpoint.site)
        try:
            return _vectors.decode(answer)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise EngineFailed(
                f"{self._endpoint.site.host} sent malformed embeddings: {error}"
            ) from error

    def _lose(self, ability: Ability, problem: Problem) -> NoReturn:
        """The endpoint turned out not to have this."""
        self._lost.add(ability)
        error = error_of(problem, self._endpoint.site)
        raise Unsupported(
            f"this endpoint has no {ability.value}: {error.message}",
            hint="use another engine for it",
        )


def _in_order(answer: _Vectors, n_texts: int, host: str) -> list[tuple[float, ...]]:
    """One vector of length 1 for each text, in the order of the texts."""
    by_index = {vector.index: vector.embedding for vector in answer.data}
    if sorted(by_index) != list(range(n_texts)):
        raise EngineFailed(f"{host} sent {len(answer.data)} embeddings for {n_texts} texts")
    vectors: list[tuple[float, ...]] = []
    for index in range(n_texts):
        length = sqrt(sum(value * value for value in by_index[index]))
        if not isfinite(length) or length == 0:
            raise EngineFailed(f"{host} sent an embedding that has no direction")
        vectors.append(tuple(value / length for value in by_index[index]))
    return vectors
