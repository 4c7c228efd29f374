"""LLM cores: the engines that the kernel runs, their start and end, and the one for a model name."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from aios.abi.types import EngineInfo, Usage
from aios.engine.base import Engine, EngineStatistics
from aios.errors import AiosError, EngineUnavailable, NotFound
from aios.kernel.process import Run
from aios.kernel.scheduler.scheduler import Scheduler

DEFAULT_NAMES = frozenset({"", "default"})


@dataclass(eq=False)
class Core:
    """An engine that the kernel runs (an LLM core, in the paper's words) and how far its start has come."""

    name: str
    kind: str
    make: Callable[[], Awaitable[Engine]]
    """Builds and starts the engine."""
    model: str = ""
    engine: Engine | None = None
    error: AiosError | None = None
    ready: anyio.Event = field(default_factory=anyio.Event)

    @property
    def resource(self) -> str:
        """Its name in the scheduler."""
        return f"engine:{self.name}"


class Cores:
    """All engines of one kernel."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._cores: dict[str, Core] = {}

    def add(self, core: Core) -> None:
        """Make an engine known; it takes calls once `start` has run."""
        self._cores[core.name] = core

    async def start(self, core: Core) -> None:
        """Start an engine; calls for it wait until then. A failure is kept and told to every call."""
        try:
            core.engine = await core.make()
            core.model = core.engine.capabilities.model
            self._scheduler.set_capacity(core.resource, core.engine.capabilities.n_slots)
        except AiosError as error:
            core.error = error
        finally:
            core.ready.set()

    async def aclose(self) -> None:
        """Close every engine."""
        for core in self._cores.values():
            if core.engine is not None:
                await core.engine.aclose()

    def infos(self) -> tuple[EngineInfo, ...]:
        """The engines as `info` shows them."""
        lanes = self._scheduler.statistics()
        rows = []
        for core in self._cores.values():
            lane = lanes.get(core.resource)
            offer = core.engine.capabilities if core.engine else None
            numbers = core.engine.statistics() if core.engine else EngineStatistics()
            rows.append(
                EngineInfo(
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
                    note=self._note(core),
                )
            )
        return tuple(rows)

    def _note(self, core: Core) -> str:
        if core.error is not None:
            return f"{core.error.message}; {core.error.hint}"
        return core.engine.capabilities.note if core.engine else "loading"

    async def find(self, run: Run, model: str) -> tuple[Core, Engine]:
        """The engine for a model name; waits while it is being loaded."""
        core = self._named(model)
        if core is None:
            await self._loaded(run, *self._cores.values())  # some tell their model only then
            core = self._named(model)
        if core is None:
            known = ", ".join(core.model or core.name for core in self._cores.values())
            hint = f"models served: {known}; or `default`"
            raise NotFound(f"no engine serves the model {model[:100]!r}", hint=hint)
        await self._loaded(run, core)
        if core.error is not None:
            raise _again(core.error)
        if core.engine is None:
            raise EngineUnavailable(f"engine {core.name} is closed", hint="start the kernel again")
        return core, core.engine

    def _named(self, model: str) -> Core | None:
        if not self._cores:
            raise EngineUnavailable(
                "this kernel runs no engine", hint="set engine.kind, see `aios config`"
            )
        if model in DEFAULT_NAMES:
            return next(iter(self._cores.values()))
        return next((c for c in self._cores.values() if model in (c.name, c.model)), None)

    async def _loaded(self, run: Run, *cores: Core) -> None:
        for core in cores:
            if not core.ready.is_set():
                with run.parked():
                    await core.ready.wait()
                await run.runnable()


def _again(error: AiosError) -> AiosError:
    """A fresh copy: one exception object must not be raised in many tasks."""
    return type(error)(error.message, hint=error.hint, retry_after_s=error.retry_after_s)
