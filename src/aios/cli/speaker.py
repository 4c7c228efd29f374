"""The line from `chat` to a model: the kernel that runs, or one of our own, spoken to as a guest of the name `chat`.

The event loop runs in a thread of anyio's, so that the main thread can wait for the keyboard and take Ctrl-C.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Event

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from aios.abi.calls import Admit, Chat, ChatAnswer, ExitSelf, Guest
from aios.abi.gate import Gate, Result, Token
from aios.cli.embedded import wait_for_others
from aios.cli.gates import open_async_gate
from aios.cli.link import find_running
from aios.cli.readiness import check_engine
from aios.configload import Loaded
from aios.errors import AccessDenied, AiosError, KernelStopping, KernelUnreachable
from aios.sdk.address import Address
from aios.server.daemon import open_server

GUEST_NAME = "chat"
LEAVE_S = 2.0
"""Longest time for the kernel to take note that a call is cancelled or the guest leaves."""


class Interrupted(Exception):
    """Ctrl-C came while the model wrote."""

    def __init__(self, text: str) -> None:
        super().__init__("interrupted")
        self.text = text
        """What it had written."""


@dataclass
class Speaker:
    """Asks models; finds a kernel with the first question, and another one when that has gone.

    Args:
        loaded: Configuration and home.
        tell: Takes what a user should know beside the answers.
        may_ask: Offer to fetch a missing model.
    """

    loaded: Loaded
    tell: Callable[[str], None]
    may_ask: bool
    _stack: ExitStack = field(default_factory=ExitStack)
    _gate: Gate | None = None
    _portal: BlockingPortal | None = None

    def __enter__(self) -> "Speaker":
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def ask(self, call: Chat, on_text: Callable[[str], None]) -> Result[ChatAnswer]:
        """Ask; the pieces of the answer go to `on_text` as they come.

        Raises:
            AiosError: The call failed.
            Interrupted: Ctrl-C came first; the call has been cancelled.
        """
        pieces: list[str] = []

        def take(text: str) -> None:
            pieces.append(text)
            on_text(text)

        try:
            return self._ask(call, take)
        except KeyboardInterrupt:
            raise Interrupted("".join(pieces)) from None
        except (KernelStopping, KernelUnreachable):
            self.hang_up()
            if pieces:
                raise
        return self._ask(
            call, take
        )  # the kernel of another command has ended with it; now there is one again

    def hang_up(self) -> None:
        """Leave the kernel; one of our own ends, unless others need it: then this waits for them."""
        self._gate = self._portal = None
        self._stack.close()

    def _ask(self, call: Chat, on_text: Callable[[str], None]) -> Result[ChatAnswer]:
        if self._gate is None or self._portal is None:
            self._gate, self._portal = self._open()
        over = Event()
        future = self._portal.start_task_soon(_generate, self._gate, call, on_text, over)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            over.wait(LEAVE_S)
            raise

    def _open(self) -> tuple[Gate, BlockingPortal]:
        address = find_running(self.loaded.home)
        if address is None:
            check_engine(self.loaded, may_ask=self.may_ask)
        portal = self._stack.enter_context(start_blocking_portal())
        line = _open_line(self.loaded, address, self.tell)
        return self._stack.enter_context(portal.wrap_async_context_manager(line)), portal


async def _generate(
    gate: Gate, call: Chat, on_text: Callable[[str], None], over: Event
) -> Result[ChatAnswer]:
    """Make the call; `over` is set when it has ended, cancelled or not."""
    try:
        async with gate.open_call(call) as frames:
            async for frame in frames:
                if isinstance(frame, Token) and frame.text:
                    on_text(frame.text)
            return await frames.result()
    finally:
        over.set()


@asynccontextmanager
async def _open_line(
    loaded: Loaded, address: Address | None, tell: Callable[[str], None]
) -> AsyncIterator[Gate]:
    """A gate on that kernel, or on one of our own."""
    if address is not None:
        async with _as_guest(address) as gate:
            yield gate
        return
    async with open_server(loaded, http=False, embedded=True) as kernel:
        async with _as_guest(Address(kernel.urls[0], kernel.owner_token)) as gate:
            yield gate
        await wait_for_others(kernel.init_gate(), tell)


@asynccontextmanager
async def _as_guest(address: Address) -> AsyncIterator[Gate]:
    """A gate as a guest of our own, so that `aios ps` shows the chat and `aios kill` ends it; else as who we are."""
    guest: Guest | None = None
    async with open_async_gate(address) as gate:
        with suppress(AccessDenied):  # a program's token may speak but admits nobody
            guest = (await gate.call(Admit(name=GUEST_NAME))).value
    token = guest.token if guest is not None else address.token
    async with open_async_gate(Address(address.url, token)) as gate:
        try:
            yield gate
        finally:
            if guest is not None:
                with anyio.move_on_after(LEAVE_S, shield=True), suppress(AiosError):
                    await gate.call(ExitSelf())
