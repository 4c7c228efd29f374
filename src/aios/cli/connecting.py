"""The client of commands: as that of the SDK, but it says what a call waits for when that is an answer of who sits here."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import click

from aios.abi.approvals import WAITS_FOR
from aios.abi.call import Answer, Call
from aios.abi.gate import Advance, Result
from aios.sdk import blocking
from aios.sdk.blocking import BlockingFrames, BlockingGate, Client

A = TypeVar("A", bound=Answer)


class TellingGate:
    """A gate that tells on stderr of each question which a call of it waits for."""

    def __init__(self, gate: BlockingGate) -> None:
        self._gate = gate

    def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end."""
        with self._gate.open_call(call) as frames:
            for frame in frames:
                if isinstance(frame, Advance) and frame.what.startswith(WAITS_FOR):
                    number = frame.what.removeprefix(WAITS_FOR)
                    click.echo(
                        f"waiting for your answer to question {number}: `aios approvals show {number}` in another terminal",
                        err=True,
                    )
            return frames.result()

    def open_call(self, call: Call[A]) -> AbstractContextManager[BlockingFrames[A]]:
        """Make a call and read its frames; leaving the block early cancels the call."""
        return self._gate.open_call(call)


@contextmanager
def connect(url: str | None = None, token: str | None = None) -> Iterator[Client]:
    """A client of the running kernel, for the length of the block; see `aios.connect` for arguments and errors."""
    with blocking.connect(url, token) as client:
        yield Client(TellingGate(client.gate))
