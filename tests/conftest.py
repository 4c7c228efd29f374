"""Fixtures that every test may use."""

import gc
import signal
import sys
from collections.abc import Generator, Iterator
from functools import cache

import httpx
import pytest
from hypothesis import settings

settings.register_profile(
    "aios", deadline=None
)  # a busy machine is no failure; benches hold the bars of time
settings.load_profile("aios")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what goes to the background so, and programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end: the collector of garbage need not look through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of what is drawn by chance, no line is counted: traced, it takes twice to five times as long, and passes where other tests do."""
    is_drawn = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if is_drawn or (isinstance(item, pytest.Function) and "seed" in item.fixturenames):
        item.add_marker("no_cover")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _certificates_are_read_once() -> Iterator[None]:
    """httpx reads those of all authorities for each client that is opened: 60 ms in each of hundreds of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context)
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def _closed_null_files() -> Iterator[None]:
    """llama_cpp opens /dev/null twice when it is imported and never closes it, which Python says after the summary."""
    yield
    utils = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if hasattr(utils, name):
            getattr(utils, name).close()
