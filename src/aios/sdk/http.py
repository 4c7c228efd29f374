"""The gate over HTTP: for programs on another machine, and where Unix sockets cannot go."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar, cast
from urllib.parse import urlsplit

import httpx

from aios.abi.call import Answer, Call
from aios.abi.every import Frame
from aios.abi.gate import Advance, Change, Fault, Line, Progress, Result, Token, error_of
from aios.abi.wire import call_to_json, frame_from_json
from aios.errors import AiosError, InvalidCall, KernelUnreachable
from aios.sdk.packets import broken, words

CONNECT_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 256

A = TypeVar("A", bound=Answer)


class HttpGate:
    """A way into the kernel on behalf of the process that `token` stands for. Implements `aios.abi.gate.Gate`.

    Use it in `async with`, or close it with `aclose`.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            verify=urlsplit(url).scheme
            != "http",  # who needs no certificates does not read them: 60 ms
            trust_env=False,  # a token for this machine must not travel through a proxy
        )

    async def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end. Cancelling cancels the call.

        Raises:
            AiosError: The call ended in a `Fault`, or the connection broke.
        """
        try:
            response = await self._http.post("/aios/call", content=call_to_json(call))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        match self._frame(response.content):
            case Result() as result:
                return cast("Result[A]", result)
            case Fault() as fault:
                raise error_of(fault)
            case _:
                raise broken("the answer was no end of a call")

    @asynccontextmanager
    async def open_call(self, call: Call[A]) -> "AsyncIterator[HttpFrames[A]]":
        """Make a call and read its frames; leaving the block early cancels the call."""
        try:
            request = self._http.build_request("POST", "/aios/stream", content=call_to_json(call))
            response = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        try:
            yield HttpFrames(self._frames(response))
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the connections: calls in flight are cancelled."""
        await self._http.aclose()

    async def __aenter__(self) -> "HttpGate":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _frames(self, response: httpx.Response) -> AsyncIterator[Frame]:
        line = bytearray()
        try:
            async for data in response.aiter_bytes():  # httpx's lines end also within a text
                first, *others = data.split(b"\n")
                line += first
                for other in others:
                    if line:
                        yield self._frame(bytes(line))
                    line = bytearray(other)
            if line:  # a refusal has no end of line
                yield self._frame(bytes(line))
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise broken(error) from error

    def _frame(self, body: bytes) -> Frame:
        try:
            return frame_from_json(body)
        except InvalidCall as error:
            raise self._unreachable("whoever answers there is no kernel") from error

    def _unreachable(self, why: object) -> KernelUnreachable:
        return KernelUnreachable(
            f"no kernel answers at {self._url}: {words(why)}",
            hint="start one with `aios serve`, or check the address",
        )


class HttpFrames(Generic[A]):
    """The frames of one call. Implements `aios.abi.gate.Frames`."""

    def __init__(self, frames: AsyncIterator[Frame]) -> None:
        self._frames = frames
        self._result: Result[A] | None = None
        self._error: AiosError | None = None

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self

    async def __anext__(self) -> Progress:
        if self._result is None and self._error is None:
            frame = await self._next()
            match frame:
                case Token() | Line() | Change() | Advance():
                    return frame
                case Result():
                    self._result = cast("Result[A]", frame)
                case Fault():
                    self._error = error_of(frame)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def result(self) -> Result[A]:
        """Skip what was not read and return the end of the call.

        Raises:
            AiosError: The call ended in a `Fault`, or the connection broke.
        """
        async for _ in self:
            pass
        assert self._result is not None
        return self._result

    async def _next(self) -> Frame:
        async for frame in self._frames:
            return frame
        raise broken("it ended before the call did")
