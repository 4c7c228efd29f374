"""An agent that remembers, only when asked to: `Agent(client, memory=AgentMemory(client.memory, tokens=300))`.

Before a run it recalls what fits the task, within its allowance of tokens, and puts it in front of the task; after a run that was
completed it keeps the exchange as a note, for the next time.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from aios.abi.memory import Hit
from aios.abi.types import Message, Role, TextPart
from aios.errors import AiosError, InvalidCall, Unsupported
from aios.sdk.client import Client
from aios.sdk.memory import Memory, ScopeName

HEADING = "Notes from earlier, which may be wrong or out of date:"
EXCHANGE = "exchange"
EXCHANGE_IMPORTANCE = 0.3
"""Less than what was remembered on purpose."""
MAX_EXCHANGE_CHARS = 4_000
BYTES_A_TOKEN = 2
"""Where an engine cannot count: fewer than any text of words has, so that the allowance is kept."""


class Preface(Struct, frozen=True):
    """What was recalled for a task: the text to put in front of it, and the ids of the notes in it."""

    text: str = ""
    notes: tuple[int, ...] = ()


class AgentMemory:
    """How an agent remembers.

    Args:
        memory: Where; as a rule `client.memory`.
        tokens: At most so many tokens of notes in front of a task.
        limit: At most so many notes.
        scopes: Where notes are looked for; all that the agent may read when empty.
        tags: What notes must have to be recalled, and what kept exchanges get.
        is_recording: Whether exchanges are kept; they are for agents of this owner and name.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        tokens: int = 300,
        limit: int = 5,
        scopes: Sequence[ScopeName] = (),
        tags: Sequence[str] = (),
        is_recording: bool = True,
    ) -> None:
        if tokens < 1 or limit < 1:
            raise InvalidCall("an allowance below 1", hint="`tokens` and `limit` are >= 1")
        self._memory = memory
        self._tokens = tokens
        self._limit = limit
        self._scopes = tuple(scopes)
        self._tags = tuple(tags)
        self._is_recording = is_recording

    async def recall(self, client: Client, task: Message, *, model: str) -> Preface:
        """The best notes for a task, as many as the allowance has room for.

        Raises:
            AiosError: A system call failed; see `Memory.recall`.
        """
        query = task.text().strip()[:MAX_EXCHANGE_CHARS]
        if not query:
            return Preface()
        found = await self._memory.recall(query, self._limit, scopes=self._scopes, tags=self._tags)
        hits = found.hits
        while hits and await _n_tokens(client, _text(hits), model) > self._tokens:
            hits = hits[:-1]
        return Preface(_text(hits), tuple(hit.note.id for hit in hits)) if hits else Preface()

    async def record(self, task: Message, answer: str) -> int | None:
        """Keep an exchange. Returns: its note; None when it is not kept, because nobody asked or memory is full or away."""
        if not self._is_recording or not answer.strip():
            return None
        half = MAX_EXCHANGE_CHARS // 2
        text = f"Asked: {task.text()[:half]}\nAnswered: {answer[:half]}"
        try:
            return await self._memory.remember(
                text,
                tags=[EXCHANGE, *self._tags],
                importance=EXCHANGE_IMPORTANCE,
                source="agent",
            )
        except AiosError:
            return None  # the answer is worth more than the note of it, and the result says that there is none


def prefaced(task: Message, preface: Preface) -> Message:
    """A task with what was recalled in front of it."""
    if not preface.text:
        return task
    front = TextPart(f"{preface.text}\n\n")
    if isinstance(task.content, str):
        return msgspec.structs.replace(task, content=front.text + task.content)
    return msgspec.structs.replace(task, content=(front, *task.content))


def _text(hits: Sequence[Hit]) -> str:
    lines = [f"- {' '.join(hit.note.text.split())}" for hit in hits]
    return "\n".join([HEADING, *lines])


async def _n_tokens(client: Client, text: str, model: str) -> int:
    """The tokens of a text as a message; where the engine cannot count, more than they are."""
    try:
        return (await client.count_tokens([Message(Role.USER, text)], model=model)).n_tokens
    except Unsupported:
        return len(text.encode()) // BYTES_A_TOKEN
