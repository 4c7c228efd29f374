"""An agent that remembers, only when asked to: `Agent(client, memory=AgentMemory(client.memory, tokens=300))`.

Before a run it recalls what fits the task, within its allowance of tokens, and puts it in front of the task; after a run that was
completed it keeps the exchange as a note, for the next time. It can also log what the agent said, asked and got (`agent_log.py`), and put
the last of that in front of the first task of an agent that begins anew.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from aios.abi.interactions import Interaction
from aios.abi.memory import Hit
from aios.abi.types import Message, Role, TextPart
from aios.errors import AiosError, InvalidCall, Unsupported
from aios.sdk.agent_log import AgentLog, cut
from aios.sdk.client import Client
from aios.sdk.memory import Memory, ScopeName

HEADING = "Notes from earlier, which may be wrong or out of date:"
RECENT_HEADING = "The last of what you were asked, said and got before, oldest first:"
MAX_RECENT = 100
MAX_RECENT_CHARS = 500
"""Of a record that stands in front of a task."""
EXCHANGE = "exchange"
EXCHANGE_IMPORTANCE = 0.3
"""Less than what was remembered on purpose."""
MAX_EXCHANGE_CHARS = 4_000
BYTES_A_TOKEN = 2
"""Where an engine cannot count: fewer than any text of words has, so that the allowance is kept."""


class Preface(Struct, frozen=True):
    """What was recalled for a task: the text to put in front of it, and the ids of the notes and of the records in it."""

    text: str = ""
    notes: tuple[int, ...] = ()
    records: tuple[int, ...] = ()


class AgentMemory:
    """How an agent remembers.

    Args:
        memory: Where; as a rule `client.memory`.
        tokens: At most so many tokens of notes and records in front of a task.
        limit: At most so many notes.
        scopes: Where notes are looked for; all that the agent may read when empty.
        tags: What notes must have to be recalled, and what kept exchanges get.
        is_recording: Whether exchanges are kept; they are for this agent, also when it is started again.
        is_logging: Whether what it is asked, says and gets is logged in short-term memory, turn by turn.
        recent: So many of its last records stand in front of its first task, while its conversation is empty: those that an earlier
            life of this agent has logged. They take what the notes leave of `tokens`.
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
        is_logging: bool = False,
        recent: int = 0,
    ) -> None:
        if tokens < 1 or limit < 1:
            raise InvalidCall("an allowance below 1", hint="`tokens` and `limit` are >= 1")
        if not 0 <= recent <= MAX_RECENT:
            raise InvalidCall(
                f"{recent} recent records", hint=f"`recent` is between 0 and {MAX_RECENT}"
            )
        self._memory = memory
        self._tokens = tokens
        self._limit = limit
        self._scopes = tuple(scopes)
        self._tags = tuple(tags)
        self._is_recording = is_recording
        self._is_logging = is_logging
        self._recent = recent

    def begin_log(self, n_before: int) -> AgentLog:
        """Where a run is logged whose transcript holds so many messages already."""
        return AgentLog(self._memory if self._is_logging else None, n_before)

    async def recall(
        self, client: Client, task: Message, *, model: str, is_first: bool = False
    ) -> Preface:
        """The best notes for a task, and the last records for the first one, as many as the allowance has room for.

        Raises:
            AiosError: A system call failed; see `Memory.recall` and `Memory.read`.
        """
        query, hits = task.text().strip()[:MAX_EXCHANGE_CHARS], tuple[Hit, ...]()
        if query:
            recalled = self._memory.recall(query, self._limit, scopes=self._scopes, tags=self._tags)
            hits = (await recalled).hits
        records = tuple[Interaction, ...]()
        if is_first and self._recent:
            records = (await self._memory.read(limit=self._recent)).records
        n_fitting, n_most = 0, len(hits) + len(records)
        n_tried = n_most  # mostly all of them fit; else halve
        while n_fitting < n_most:
            text = _text(*_best(hits, records, n_tried))
            if await _n_tokens(client, text, model) <= self._tokens:
                n_fitting = n_tried
            else:
                n_most = n_tried - 1
            n_tried = (n_fitting + n_most + 1) // 2
        hits, records = _best(hits, records, n_fitting)
        return Preface(
            _text(hits, records),
            tuple(hit.note.id for hit in hits),
            tuple(record.id for record in records),
        )

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


def _best(
    hits: Sequence[Hit], records: Sequence[Interaction], n: int
) -> tuple[tuple[Hit, ...], tuple[Interaction, ...]]:
    """So many of both: the best notes come first, then the last records."""
    n_records = max(0, n - len(hits))
    return tuple(hits[:n]), tuple(records[len(records) - n_records :])


def _text(hits: Sequence[Hit], records: Sequence[Interaction]) -> str:
    notes = [f"- {' '.join(hit.note.text.split())}" for hit in hits]
    recent = [
        f"- {each.kind}: {cut(' '.join(each.text.split()), MAX_RECENT_CHARS)}" for each in records
    ]
    sections = ((HEADING, notes), (RECENT_HEADING, recent))
    return "\n\n".join("\n".join([heading, *lines]) for heading, lines in sections if lines)


async def _n_tokens(client: Client, text: str, model: str) -> int:
    """The tokens of a text as a message; where the engine cannot count, more than they are."""
    try:
        return (await client.count_tokens([Message(Role.USER, text)], model=model)).n_tokens
    except Unsupported:
        return len(text.encode()) // BYTES_A_TOKEN
