"""Async gates, for commands that follow several things at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aios.abi.gate import Gate
from aios.sdk.address import Address
from aios.sdk.socket import UnixGate


@asynccontextmanager
async def open_async_gate(address: Address) -> AsyncIterator[Gate]:
    """A gate to an address.

    Raises:
        KernelUnreachable: Nobody answers there.
        Unauthenticated: The token is not valid.
    """
    if address.unix_path is not None:
        async with UnixGate.connect(address.unix_path, address.token) as gate:
            yield gate
    else:
        from aios.sdk.http import HttpGate  # noqa: PLC0415 - start-up time: httpx takes 200 ms

        async with HttpGate(address.url, address.token) as gate:
            yield gate
