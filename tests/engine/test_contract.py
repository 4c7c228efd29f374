"""The engine contract, held against every engine."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.engine.contract import EngineContract, SharedEngineContract
from tests.engine.remote.fake_vllm import FakeVllm
from tests.engine.remote.serving import serving

from aios.config import Config, ContextConfig, EngineConfig, Home, ServerConfig
from aios.configload import load
from aios.engine.base import Ability, Engine
from aios.engine.opening import open_engine
from aios.engine.remote.openai import OpenAIEngine
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.kernel.context.manager import ContextManager
from aios.kernel.kernel import open_kernel
from aios.server.app import make_app

N_SLOTS = 3
WINDOW_TOKENS = 512


class TestScripted(EngineContract):
    """The scripted engine."""

    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Engine]:
        engine = ScriptedEngine(n_slots=N_SLOTS, window_tokens=WINDOW_TOKENS, tokens_per_read=3)
        await engine.start()
        yield engine
        await engine.aclose()


@pytest.mark.model
class TestLlama(SharedEngineContract):
    """The embedded engine with the default model."""

    _pages: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Engine]:
        # One thread: several test processes would wait for each other's at every barrier.
        config = EngineConfig(
            kind="llama", n_slots=N_SLOTS, window_tokens=WINDOW_TOKENS, n_threads=1
        )
        pages = ContextManager(ContextConfig(ram_bytes=256 << 20), cls.pages_folder())
        engine = open_engine("local", config, load().home, open_pages=pages.open_pages)
        await engine.start()
        yield engine
        await engine.aclose()
        assert sum(store.n_pins for store in pages.statistics().values()) == 0

    @classmethod
    def pages_folder(cls) -> Path:
        """One for all engines of a run, so that a later one finds what an earlier one wrote."""
        if cls._pages is None:
            cls._pages = tempfile.TemporaryDirectory()
        return Path(cls._pages.name)


class TestRemoteToAios(SharedEngineContract):
    """The remote engine, against our own server with a whole kernel and the scripted engine behind it."""

    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Engine]:
        with tempfile.TemporaryDirectory() as home:
            async with (
                open_kernel(Config(), Home(Path(home)), engines={"behind": _behind()}) as kernel,
                serving(make_app(kernel, ServerConfig())) as url,
                _remote(url, f"{kernel.owner_token}.remote") as engine,
            ):
                assert Ability.TOKENIZE in engine.capabilities.abilities
                yield engine


class TestRemoteToVllm(SharedEngineContract):
    """The remote engine, against an endpoint that can go on from a text, as vLLM does."""

    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Engine]:
        async with (
            serving(FakeVllm(_behind(token_delay_s=0.002)).app()) as url,
            _remote(url, None) as engine,
        ):
            assert Ability.SUSPEND in engine.capabilities.abilities
            yield engine


def _behind(*, token_delay_s: float = 0) -> ScriptedEngine:
    # More slots than the client uses: a request that it gave up takes a moment to end over there.
    script = Script(token_delay_s=token_delay_s)
    return ScriptedEngine(
        n_slots=3 * N_SLOTS, window_tokens=WINDOW_TOKENS, script=script, tokens_per_read=1
    )


@asynccontextmanager
async def _remote(url: str, api_key: str | None) -> AsyncIterator[Engine]:
    config = EngineConfig(kind="openai", base_url=f"{url}/v1", n_slots=N_SLOTS, timeout_s=10)
    engine = OpenAIEngine(name="remote", config=config, api_key=api_key)
    await engine.start()
    yield engine
    await engine.aclose()
