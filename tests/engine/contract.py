"""What every engine promises (`aios.engine.base`), as tests.

A test module makes a subclass of `EngineContract` for each engine and gives it the fixture `engine` (started; a window of
some hundred tokens and at least three slots keep it fast) and `make`, for the tests that need one to themselves. What
an engine does not declare to be able to do is skipped; that it then refuses it is a test of its own.
"""

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from tests.engine.contract_output import OutputContract
from tests.engine.contract_slots import SlotContract

from aios.engine.base import Engine


class EngineContract(OutputContract, SlotContract):
    """Subclass it as `TestSomething`, give it `make`, and override `engine` to share one between tests."""

    @classmethod
    @abstractmethod
    def make(cls) -> AbstractAsyncContextManager[Engine]:
        """A started engine, closed at the end."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        async with self.make() as engine:
            yield engine


class SharedEngineContract(EngineContract):
    """The same for engines that are dear to make: one for the whole class."""

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture(scope="class")
    @classmethod
    async def engine(cls) -> AsyncIterator[Engine]:
        async with cls.make() as engine:
            yield engine
