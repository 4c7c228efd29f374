"""Fixtures that every test may use."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _closed_null_files() -> Iterator[None]:
    """llama_cpp opens /dev/null twice when it is imported and never closes it, which Python says after the summary."""
    yield
    utils = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if hasattr(utils, name):
            getattr(utils, name).close()
