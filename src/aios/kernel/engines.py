"""From the configuration to the cores that the kernel runs."""

from collections.abc import Awaitable, Callable, Mapping

import anyio

from aios.config import Config, EngineConfig, Home
from aios.engine.base import Engine, OpenPages
from aios.engine.machine import count_cores
from aios.engine.opening import engine_kind, model_name, open_engine
from aios.engine.remote.governor import Governors
from aios.kernel.cores import Core, CoreConfig
from aios.kernel.ratelimit import Rate


def configured_cores(config: Config, home: Home, open_pages: OpenPages | None) -> list[Core]:
    """A core for each engine of the configuration, `local` first; those of kind `none` are left out."""
    governors = Governors()
    return [
        Core(
            name,
            engine_kind(engine),
            _maker(name, engine, home, governors=governors, open_pages=open_pages),
            model=_expected_model(engine),
            config=CoreConfig(
                aliases=engine.aliases,
                fallback=engine.fallback,
                priority=engine.priority,
                start_timeout_s=engine.start_timeout_s,
                max_restarts=engine.max_restarts,
                prompt_price=engine.prompt_price,
                completion_price=engine.completion_price,
                rate=_rate(engine),
            ),
        )
        for name, engine in config.all_engines().items()
        if engine_kind(engine) != "none"
    ]


def _rate(config: EngineConfig) -> Rate | None:
    """Its limits; those with one address and one key share them."""
    if not (config.requests_per_minute or config.tokens_per_minute):
        return None
    key = f"{config.base_url} {config.api_key_env}"
    return Rate(key, config.requests_per_minute, config.tokens_per_minute)


def given_cores(engines: Mapping[str, Engine]) -> list[Core]:
    """Engines that the embedding program made: a broken one cannot be made again."""
    return [Core(name, type(engine).__name__, _starter(engine)) for name, engine in engines.items()]


def _starter(engine: Engine) -> Callable[[], Awaitable[Engine]]:
    async def make() -> Engine:
        await engine.start()
        return engine

    return make


def thread_warnings(config: Config) -> list[str]:
    """What to tell the user about embedded engines that get into each other's way."""
    n_cores = count_cores()
    embedded = [
        (name, engine.n_threads or n_cores)
        for name, engine in config.all_engines().items()
        if engine_kind(engine) == "llama"
    ]
    n_threads = sum(n for _, n in embedded)
    if len(embedded) < 2 or n_threads <= n_cores:
        return []
    names = ", ".join(name for name, _ in embedded)
    why = f"have {n_threads} threads on {n_cores} cores and slow each other"
    return [f"the embedded engines {names} {why}; lower their `n_threads`"]


def _expected_model(config: EngineConfig) -> str:
    """The model's name before the engine has told it."""
    return model_name(config) if engine_kind(config) == "llama" else config.model


def _maker(
    name: str,
    config: EngineConfig,
    home: Home,
    *,
    governors: Governors,
    open_pages: OpenPages | None,
) -> Callable[[], Awaitable[Engine]]:
    async def make() -> Engine:
        engine = open_engine(name, config, home, governors=governors, open_pages=open_pages)
        is_started = False
        try:
            await engine.start()
            is_started = True
        finally:
            if not is_started:
                with anyio.CancelScope(shield=True):
                    await engine.aclose()
        return engine

    return make
