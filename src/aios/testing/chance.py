"""All that differs between two runs of the same program, made to follow from one seed: threads, randomness, the order of sets.

What the kernel gives to a thread runs in its loop instead, after a time that the seed decides, with others in between as they
would be beside a thread. It runs alone, though: that a thread and the loop touch the same memory at once is not simulated.
"""

import random
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TypeVar
from unittest.mock import patch

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio._backends import _asyncio as backend

T = TypeVar("T")

TOKEN_BYTES = 32
"""The length where `secrets` is asked for none."""


class OrderedSet(dict[T, None]):
    """As much of a set as anyio uses, walked in the order of insertion, where a plain one goes by addresses in memory."""

    def add(self, value: T) -> None:
        """Put one in."""
        self[value] = None

    def remove(self, value: T) -> None:
        """Take one out, which is there."""
        del self[value]

    def discard(self, value: T) -> None:
        """Take one out, if it is there."""
        self.pop(value, None)


@contextmanager
def repeatable(seed: int, thread_s: Callable[[random.Random], float]) -> Iterator[None]:
    """Inside the block everything follows from the seed. Only one block at a time in a program.

    Args:
        seed: Of the random numbers and the times.
        thread_s: How long a call in a thread takes, half of it before and half after its work.
    """
    chance, pace = random.Random(f"chance {seed}"), random.Random(f"pace {seed}")  # noqa: S311 - repeatable on purpose

    async def run_sync(
        work: Callable[..., T],
        *args: object,
        abandon_on_cancel: bool = False,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> T:
        await anyio.lowlevel.checkpoint()
        async with limiter or nullcontext():
            with anyio.CancelScope(shield=not abandon_on_cancel):
                half_s = thread_s(pace) / 2
                await anyio.sleep(half_s)
                try:
                    return work(*args)
                finally:
                    await anyio.sleep(half_s)
        raise AssertionError("a scope that was not cancelled ended early")

    def run_in_loop(work: Callable[..., T], *args: object) -> T:
        return work(*args)

    def token_bytes(n_bytes: int | None = None) -> bytes:
        return chance.randbytes(TOKEN_BYTES if n_bytes is None else n_bytes)

    def token_urlsafe(n_bytes: int | None = None) -> str:
        return urlsafe_b64encode(token_bytes(n_bytes)).rstrip(b"=").decode()

    with ExitStack() as stack:
        for module, name, ours in (
            (anyio.to_thread, "run_sync", run_sync),
            (anyio.from_thread, "run_sync", run_in_loop),
            (secrets, "token_bytes", token_bytes),
            (secrets, "token_hex", lambda n_bytes=None: token_bytes(n_bytes).hex()),
            (secrets, "token_urlsafe", token_urlsafe),
            (secrets, "randbits", chance.getrandbits),
            (backend.CancelScope, "__init__", _ordered(backend.CancelScope.__init__)),
        ):
            stack.enter_context(patch.object(module, name, ours))
        yield


def _ordered(init: Callable[..., None]) -> Callable[..., None]:
    """A scope cancels its tasks and inner scopes in the order of a set of objects, which differs from run to run."""

    def ordered_init(
        scope: backend.CancelScope, deadline: float = float("inf"), shield: bool = False
    ) -> None:
        init(scope, deadline, shield)
        scope._tasks = OrderedSet()  # type: ignore[assignment]  # noqa: SLF001 - as a set to anyio
        scope._child_scopes = OrderedSet()  # type: ignore[assignment]  # noqa: SLF001 - as above

    return ordered_init
