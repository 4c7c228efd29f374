"""What an agent said, asked and got, as records of short-term memory, logged turn by turn.

A record is a message of the transcript. Those that could not be logged are tried again, in their order, with the next turn: so a log has no gaps.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio

from aios.abi.interactions import MAX_RECORD_CHARS
from aios.abi.types import Message, Role, TextPart
from aios.errors import AiosError
from aios.sdk.memory import Memory

ASKED, SAID, GOT = "asked", "said", "got"
KINDS = {Role.USER: ASKED, Role.ASSISTANT: SAID, Role.TOOL: GOT}
IMAGE = "[image]"
LONGEST_S = 5.0
"""A turn that was settled is logged also when its run is cancelled; that holds the cancel up no longer than this."""


class AgentLog:
    """The records of one run.

    Args:
        memory: Where they are logged; None: nowhere.
        n_before: So many messages of the transcript are not of this run.
    """

    def __init__(self, memory: Memory | None, n_before: int) -> None:
        self._memory = memory
        self._n_done = n_before
        self._prefaced: Message | None = None
        self._task: Message | None = None
        self.records: list[int] = []
        """The numbers of those that are on disk."""

    def begin(self, prefaced: Message, task: Message) -> None:
        """Log that task where the transcript has it with something in front: what was remembered is not said again."""
        self._prefaced, self._task = prefaced, task

    async def log(self, settled: Sequence[Message]) -> None:
        """Log what of the transcript is not logged yet, one record after the other: side by side they would keep no order.

        It raises nothing: the run is worth more than its records, and `count_unlogged` tells.
        """
        if self._texts(settled):
            await _finished(lambda: self._log(settled))

    def count_unlogged(self, settled: Sequence[Message]) -> int:
        """How many records could not be logged."""
        return len(self._texts(settled))

    async def _log(self, settled: Sequence[Message]) -> None:
        with suppress(AiosError):
            for message in settled[self._n_done :]:
                text = self._text(message)
                if text and self._memory is not None:
                    self.records.append(await self._memory.log(text, KINDS[message.role]))
                self._n_done += 1

    def _texts(self, settled: Sequence[Message]) -> list[str]:
        if self._memory is None:
            return []
        return [text for each in settled[self._n_done :] if (text := self._text(each))]

    def _text(self, message: Message) -> str:
        return text_of(self._task if message is self._prefaced and self._task else message)


async def _finished(work: Callable[[], Awaitable[None]]) -> None:
    """Work that a cancel cuts short only `LONGEST_S` later. Without one it may wait as long as it must: its process may be stopped."""
    shield = anyio.CancelScope(shield=True)

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            shield.deadline = anyio.current_time() + LONGEST_S

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        with shield:
            await work()
        group.cancel_scope.cancel()


def text_of(message: Message) -> str:
    """A message as the text of a record; a longer one is cut, and says how much of it is missing."""
    parts = (message.content,) if isinstance(message.content, str) else message.content
    said = [
        part if isinstance(part, str) else part.text if isinstance(part, TextPart) else IMAGE
        for part in parts
    ]
    called = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    text = "\n".join(each for each in ("".join(said), *called) if each.strip())
    if message.role is Role.TOOL and message.name:
        text = f"{message.name}: {text}"
    return cut(text, MAX_RECORD_CHARS)


def cut(text: str, n_chars: int) -> str:
    """At most so many characters of a text, with a mark at its end that says how many are missing."""
    if len(text) <= n_chars:
        return text
    n_kept = n_chars - len(_mark(len(text)))
    return text[:n_kept] + _mark(len(text) - n_kept)


def _mark(n_missing: int) -> str:
    return f" [{n_missing} more characters]"
