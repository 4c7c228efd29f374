"""LLM cores: the engines that the kernel runs. They are started, watched, started again when they break, and found for calls.

    LOADING -> READY <-> DOWN       DOWN: waits, longer each time, then starts again; given up after `max_restarts` in a row

A call that an engine fails tells so (`note_failure`). The engine counts as broken when it says that it is not there, or after
`MAX_ERRORS` failures without an answer between them. Calls that still run on it may end first; then it is closed and replaced.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from msgspec import Struct

from aios.abi.types import EngineInfo, EngineState, Usage
from aios.engine.base import Ability, Capabilities, Engine, EngineStatistics
from aios.errors import AiosError, CallerError, EngineUnavailable, NotFound, edge
from aios.kernel.homes import Home
from aios.kernel.process import Run
from aios.kernel.ratelimit import Rate
from aios.kernel.router import (
    DECODE_WEIGHT,
    DEFAULT_NAMES,
    USUAL_CALL_TOKENS,
    Candidate,
    Wish,
    find_chain,
    find_named,
    route,
)
from aios.kernel.scheduler.recorder import Recorder, ServedCall
from aios.kernel.scheduler.scheduler import LaneStatistics, Scheduler

MAX_ERRORS = 3
"""Calls in a row that an engine may fail before it is closed and started again."""
LONGEST_DELAY_S = 300.0
DRAIN_S = 300.0
"""Longest time that calls on a broken engine have to end before it is closed under them."""


def restart_delay_s(n_failures: int) -> float:
    """How long a broken engine rests: 1 s, doubled with each failure in a row."""
    return min(2.0 ** (n_failures - 1), LONGEST_DELAY_S)


class CoreConfig(Struct, frozen=True):
    """What the kernel knows of an engine before it runs. `max_restarts` 0: a broken one is tried again by each call."""

    aliases: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    priority: int = 0
    start_timeout_s: float = 600.0
    max_restarts: int = 0
    prompt_price: float = 0.0
    """Of a million tokens, as in the configuration; so millionths of the currency a token."""
    completion_price: float = 0.0
    rate: Rate | None = None
    """The limits of its endpoint's key."""
    delay_s: Callable[[int], float] = restart_delay_s


@dataclass(eq=False)
class Core:
    """An engine that the kernel runs (an LLM core, in the paper's words) and how it is."""

    name: str
    kind: str
    make: Callable[[], Awaitable[Engine]]
    """Builds and starts the engine."""
    model: str = ""
    config: CoreConfig = field(default_factory=CoreConfig)
    engine: Engine | None = None
    state: EngineState = EngineState.LOADING
    error: AiosError | None = None
    """Why it is down."""
    offer: Capabilities | None = None
    """What the engine offers, or offered when it last ran."""
    ready: anyio.Event = field(default_factory=anyio.Event)
    """Set once the first start has ended, however it did."""
    n_failures: int = 0
    """Starts that failed and breakdowns, since it last served a call."""
    n_errors: int = 0
    """Calls that it failed, since it last served one."""
    restart_at_s: float | None = None
    broken: anyio.Event = field(default_factory=anyio.Event)
    _n_users: int = 0
    _idle: anyio.Event | None = None

    @property
    def resource(self) -> str:
        """Its name in the scheduler."""
        return f"engine:{self.name}"

    @property
    def is_remote(self) -> bool:
        """It is an endpoint: what it computes it need not tell."""
        return self.kind == "openai"

    @contextmanager
    def in_use(self) -> Iterator[Engine]:
        """The engine, which is not closed before the block ends.

        Raises:
            EngineUnavailable: It is down.
        """
        if self.engine is None:
            raise EngineUnavailable("it is down", hint="`aios info` says why")
        self._n_users += 1
        try:
            yield self.engine
        finally:
            self._n_users -= 1
            if not self._n_users and self._idle is not None:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until nobody uses the engine."""
        while self._n_users:
            self._idle = anyio.Event()
            await self._idle.wait()

    @property
    def pages(self) -> str:
        """Which pages it can use: embedded engines of one model share theirs, an endpoint keeps its own."""
        fingerprint = self.offer.fingerprint if self.offer is not None else ""
        return fingerprint if self.kind == "llama" and fingerprint else self.name

    def note_served(self) -> None:
        """It has served a call: what went wrong before no longer counts."""
        self.n_errors = self.n_failures = 0

    @property
    def note(self) -> str:
        """What a user should know about it."""
        if self.error is None:
            return self.offer.note if self.offer else "loading"
        text = f"{self.error.message}; {self.error.hint}" if self.error.hint else self.error.message
        if self.restart_at_s is not None:
            return f"{text}; start {self.n_failures} of {self.config.max_restarts} follows"
        return f"{text}; given up after {self.n_failures} failures" if self.n_failures > 1 else text


class Cores:
    """All engines of one kernel."""

    def __init__(
        self,
        scheduler: Scheduler,
        find_room_tokens: Callable[[str], int | None] = lambda _: None,
        recorder: Recorder | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._recorder = recorder or Recorder(0)
        self._find_room_tokens = find_room_tokens
        self._cores: dict[str, Core] = {}
        self._is_closing = False

    def add(self, core: Core) -> None:
        """Make an engine known; it takes calls once `run` has started it."""
        self._cores[core.name] = core

    def get(self, name: str) -> Core:
        """The core of that name."""
        return self._cores[name]

    async def run(self, core: Core) -> None:
        """Start an engine, and again whenever it breaks; ends when it is given up. Calls wait for the first start."""
        while not self._is_closing:
            await self._start(core)
            if core.error is None:
                await core.broken.wait()
                await self._retire(core)
            core.n_failures += 1
            is_hopeless = isinstance(core.error, CallerError)
            if is_hopeless or core.n_failures > core.config.max_restarts:
                return
            delay_s = core.config.delay_s(core.n_failures)
            core.restart_at_s = self._scheduler.clock.now_s() + delay_s
            await anyio.sleep(delay_s)
            core.restart_at_s = None

    async def aclose(self) -> None:
        """Close every engine; none is started again."""
        self._is_closing = True
        for core in self._cores.values():
            if core.engine is not None:
                await core.engine.aclose()

    def note_served(self, core: Core, run: Run, model: str, usage: Usage) -> None:
        """A call was served: it is recorded, and its conversation is at home there now. Vectors, without tokens, are none."""
        core.note_served()
        process = run.process
        self._recorder.note(
            ServedCall(
                process.pid,
                process.name,
                process.owner,
                process.nice,
                begun_s=run.begun_s,
                ended_s=self._scheduler.clock.now_s(),
                usage=usage,
                deadline_s=run.deadline_s,
            )
        )
        n_tokens = usage.prompt_tokens + usage.completion_tokens
        if n_tokens and not run.is_background:
            run.homes[model] = Home(core.pages, n_tokens)

    def note_failure(self, core: Core, error: AiosError) -> None:
        """A call was failed by its engine; perhaps the engine is broken."""
        if self._is_closing:
            return
        core.n_errors += 1
        is_broken = isinstance(error, EngineUnavailable) or core.n_errors >= MAX_ERRORS
        if is_broken and core.state is EngineState.READY and core.config.max_restarts:
            core.state, core.error = EngineState.DOWN, error
            core.broken.set()

    async def find(
        self, run: Run, wish: Wish, tried: Mapping[str, AiosError] | None = None
    ) -> Core:
        """The engine for a call; waits, parked, while the best one is being loaded.

        Args:
            run: The call.
            wish: What it needs.
            tried: Engines that failed the call already, and how.

        Cost: 20 us, and 15 us for each engine.

        Raises:
            NotFound: No engine serves the model.
            AiosError: All that could serve it are down or were tried; the last try's error, or why the first is down.
        """
        tried = tried or {}
        while True:
            engines = self._candidates()
            found = route(engines, wish, home=run.homes.get(wish.model), tried=frozenset(tried))
            if not found:
                if find_named(engines, wish.model):
                    raise self._none_left(engines, wish, tried)
                unnamed = [core for core in self._cores.values() if not core.ready.is_set()]
                if not unnamed:
                    raise self._unknown(wish.model)
                await _loaded(run, *unnamed)  # some tell their model only then
                continue
            core = self._cores[found[0].name]
            if core.state is not EngineState.LOADING:
                return core
            await _loaded(run, core)

    async def find_known(self, run: Run, model: str) -> Core:
        """The engine that a model's name stands for, also one that is down, of which it is still known what it offers.

        Raises:
            AiosError: As `find`, without a fallback; that it is down, if it never ran.
        """
        named = find_named(self._candidates(), model)
        if named and all(each.state is EngineState.DOWN for each in named):
            for core in (self._cores[each.name] for each in named):
                if core.offer is not None:
                    return core
        return await self.find(run, Wish(model, may_fall_back=False))

    def infos(self) -> tuple[EngineInfo, ...]:
        """The engines as `info` shows them."""
        lanes = self._scheduler.statistics()
        return tuple(_info(core, lanes.get(core.resource)) for core in self._cores.values())

    async def _start(self, core: Core) -> None:
        try:
            with (
                edge(f"the start of engine {core.name}", TimeoutError),
                anyio.fail_after(core.config.start_timeout_s),
            ):
                engine = await core.make()
        except AiosError as error:
            core.error, core.state = error, EngineState.DOWN
        except TimeoutError:
            core.error = EngineUnavailable(
                f"it was not ready within {core.config.start_timeout_s:g} s",
                hint="raise engine.start_timeout_s",
            )
            core.state = EngineState.DOWN
        else:
            core.offer = engine.capabilities
            core.model = core.offer.model
            self._scheduler.set_capacity(
                core.resource,
                core.offer.n_slots,
                is_preemptible=Ability.SUSPEND in core.offer.abilities,
                budget_tokens=self._working_set_tokens(core.offer),
            )
            core.broken, core.n_errors = anyio.Event(), 0
            core.engine, core.error, core.state = engine, None, EngineState.READY
        finally:
            core.ready.set()

    def _working_set_tokens(self, offer: Capabilities) -> int | None:
        """What slots and pages can hold together; None where there are no pages: then nothing is dropped either."""
        room_tokens = self._find_room_tokens(offer.fingerprint)
        return None if room_tokens is None else room_tokens + offer.n_slots * offer.window_tokens

    async def _retire(self, core: Core) -> None:
        engine, core.engine = core.engine, None
        with anyio.move_on_after(DRAIN_S):
            await core.wait_idle()
        if engine is not None:
            await engine.aclose()

    def _candidates(self) -> list[Candidate]:
        if not self._cores:
            hint = "set engine.kind, see `aios config`"
            raise EngineUnavailable("this kernel runs no engine", hint=hint)
        lanes = self._scheduler.statistics()
        return [_candidate(core, lanes.get(core.resource)) for core in self._cores.values()]

    def _none_left(
        self, engines: list[Candidate], wish: Wish, tried: Mapping[str, AiosError]
    ) -> AiosError:
        """The error for a call that no engine is left for."""
        if tried:
            last = list(tried)[-1]
            return named_error(last, tried[last])
        named = find_named(engines, wish.model)
        chain = [self._cores[each.name] for each in find_chain(engines, named)]
        core = next(each for each in chain if each.error is not None)
        assert core.error is not None
        retry_after_s = None
        if core.restart_at_s is not None:
            retry_after_s = max(0.0, core.restart_at_s - self._scheduler.clock.now_s())
        return named_error(core.name, core.error, retry_after_s)

    def _unknown(self, model: str) -> NotFound:
        known = ", ".join(core.model or core.name for core in self._cores.values())
        hint = f"models served: {known}; or `default`; `aliases` of an engine are more names for it"
        return NotFound(f"no engine serves the model {model[:100]!r}", hint=hint)


def named_error(name: str, error: AiosError, retry_after_s: float | None = None) -> AiosError:
    """A fresh copy that names the engine: one exception object must not be raised in many tasks."""
    who = f"engine {name}"
    is_named = error.message.startswith((f"{who} ", f"{who}:"))
    message = error.message if is_named else f"{who}: {error.message}"
    hint = error.hint or "`aios info` shows how the engines are"
    return type(error)(message, hint=hint, retry_after_s=retry_after_s or error.retry_after_s)


async def _loaded(run: Run, *cores: Core) -> None:
    for core in cores:
        if not core.ready.is_set():
            with run.parked():
                await core.ready.wait()
            await run.runnable()


def _candidate(core: Core, lane: LaneStatistics | None) -> Candidate:
    offer = core.offer
    models = {*core.config.aliases, core.model} - DEFAULT_NAMES
    return Candidate(
        name=core.name,
        models=frozenset(models),
        state=core.state,
        abilities=offer.abilities if offer is not None else None,
        n_slots=max(1, offer.n_slots) if offer is not None else 1,
        n_calls=lane.n_granted + lane.n_queued if lane is not None else 0,
        call_tokens=_call_tokens(core),
        priority=core.config.priority,
        fallback=core.config.fallback,
        pages=core.pages,
    )


def _call_tokens(core: Core) -> float:
    numbers = core.engine.statistics() if core.engine is not None else EngineStatistics()
    if not numbers.n_sequences:
        return USUAL_CALL_TOKENS
    work = numbers.n_prompt_tokens_computed + DECODE_WEIGHT * numbers.n_generated_tokens
    return work / numbers.n_sequences


def _info(core: Core, lane: LaneStatistics | None) -> EngineInfo:
    offer = core.offer
    numbers = core.engine.statistics() if core.engine else EngineStatistics()
    return EngineInfo(
        name=core.name,
        kind=core.kind,
        model=core.model,
        window_tokens=offer.window_tokens if offer else 0,
        n_slots=offer.n_slots if offer else 0,
        n_running=lane.n_granted if lane else 0,
        n_queued=lane.n_queued if lane else 0,
        capabilities=tuple(sorted(a.value for a in offer.abilities)) if offer else (),
        usage=Usage(
            numbers.n_prompt_tokens,
            numbers.n_prompt_tokens - numbers.n_prompt_tokens_computed,
            numbers.n_generated_tokens,
        ),
        n_prompt_tokens_computed=numbers.n_prompt_tokens_computed,
        note=core.note,
        state=core.state,
        aliases=core.config.aliases,
        fallback=core.config.fallback,
        priority=core.config.priority,
        n_failures=core.n_failures,
    )
