"""What a context may hold: a conversation that any model takes, at every moment. Pure.

    [system] (user+ assistant [results of all its calls])*

A system message stands first. Results follow the message that made the calls, one for each, in any order, before anything
else; only the calls of the last message may still wait for theirs. An assistant speaks after a user or after results.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice

import msgspec
from msgspec import Struct

from aios.abi.types import Message, Role, ToolCall
from aios.errors import InvalidCall
from aios.readers import from_json

MESSAGE_BYTES = 128
"""What a message costs in memory beside its text, roughly."""

SHOWN_IDS = 8
SHOWN_CHARS = 100

UNNAMED = "unnamed"
EMPTY_OBJECT = "{}"


class Item(Struct, frozen=True):
    """A message in its place. One that is pinned never leaves the window; a note stands for messages that have left it.

    `pointer` names the page that a note leads to; 0 for none. `number` grows along the conversation, also over what has left
    the window; a note has that of the first it stands for. It is 0 in snapshots of versions that did not number.
    """

    message: Message
    is_pinned: bool = False
    is_note: bool = False
    pointer: int = 0
    size_bytes: int = 0
    number: int = 0


Items = tuple[Item, ...]


class Rewrite(Struct, frozen=True):
    """A change of a transcript other than at its end, such that it can be undone: `n_put` items stand for `removed` now.

    Of a compaction `spans` are the places of what left, and `note` stands for it.
    """

    what: str
    n_messages: int
    at: int = 0
    removed: Items = ()
    n_put: int = 0
    n_tokens_before: int = 0
    n_tokens_after: int = 0
    is_estimated: bool = False
    unix_s: float = 0.0
    spans: tuple[tuple[int, int], ...] = ()
    note: Item | None = None


class Transcript(Struct, frozen=True, dict=True):
    """All that a context is made of: what a model is shown, what can be undone, and what was paged out of the window.

    Page `i` stands under pointer `i + 1`.
    """

    items: Items = ()
    rewrites: tuple[Rewrite, ...] = ()
    pages: tuple[Items, ...] = ()

    @cached_property
    def size_bytes(self) -> int:
        """What it takes in memory, roughly; a page that can still be undone counts twice."""
        parts = (self.items, *(each.removed for each in self.rewrites), *self.pages)
        return sum(item.size_bytes for part in parts for item in part)

    @cached_property
    def unanswered(self) -> tuple[str, ...]:
        """The calls that wait for their results."""
        return tuple(tail_of(self.items).waiting)

    def put(self, items: Items) -> "Transcript":
        """It with these items shown, which go on after those that are."""
        return msgspec.structs.replace(self, items=items)


@dataclass(slots=True)
class Tail:
    """The end of a transcript, as far as it says what may follow; it changes as messages follow.

    `waiting` are calls without a result, in their order, `answered` those of the same message that have one.
    """

    role: Role | None = None
    waiting: dict[str, None] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


def tail_of(items: Sequence[Item]) -> Tail:
    """The end of a valid transcript; looks only at its last message and results."""
    if not items:
        return Tail()
    answered: set[str] = set()
    for item in reversed(items):
        message = item.message
        if message.role is not Role.TOOL:
            waiting = dict.fromkeys(c.id for c in message.tool_calls if c.id not in answered)
            return Tail(items[-1].message.role, waiting, answered)
        answered.add(message.tool_call_id)
    raise AssertionError("results without a call")


def extended(items: Items, messages: Sequence[Message], *, is_pinned: bool = False) -> Items:
    """A transcript with messages added.

    Raises:
        InvalidCall: One cannot stand where it would; says which and why.
    """
    tail = tail_of(items)
    for i, message in enumerate(messages):
        tail = _follow(tail, message, f"message {len(items) + i}")
    start = next_number(items)
    added = (
        new_item(message, is_pinned=is_pinned, number=number)
        for number, message in enumerate(messages, start)
    )
    return (*items, *added)


def new_item(
    message: Message,
    *,
    is_pinned: bool = False,
    is_note: bool = False,
    pointer: int = 0,
    number: int = 0,
) -> Item:
    """A message in its place, measured."""
    size = MESSAGE_BYTES + len(msgspec.msgpack.encode(message))
    return Item(message, is_pinned, is_note, pointer, size, number)


def next_number(items: Items) -> int:
    """The number of the message after these: the last of them never leaves."""
    return items[-1].number + 1 if items else 1


def check_answerable(items: Sequence[Item]) -> None:
    """Return if a model may speak next.

    Raises:
        InvalidCall: There is nothing to answer, or calls wait for their results.
    """
    tail = tail_of(items)
    if tail.waiting:
        raise _unanswered(tail, "the model cannot speak")
    if tail.role not in (Role.USER, Role.TOOL):
        what = f"its last message is the {tail.role.value}'s" if tail.role else "it is empty"
        raise InvalidCall(
            f"there is nothing to answer in the context: {what}", hint="send a user's message"
        )


def check_invariants(items: Items) -> None:
    """Raise AssertionError if a model could not be shown this transcript."""
    try:
        extended((), [item.message for item in items])
    except InvalidCall as error:
        raise AssertionError(error.message) from error


def as_spoken(message: Message) -> Message:
    """A model's message as it is handed out: each of its calls has an id of its own and a name."""
    ids = {call.id for call in message.tool_calls}
    free = (name for i in count(1) if (name := f"call_{i}") not in ids)
    seen: set[str] = set()
    calls = []
    for call in message.tool_calls:
        call_id = call.id if call.id and call.id not in seen else next(free)
        seen.add(call_id)
        calls.append(ToolCall(call_id, call.name or UNNAMED, call.arguments))
    return msgspec.structs.replace(message, role=Role.ASSISTANT, tool_calls=tuple(calls))


def as_kept(message: Message) -> Message:
    """The same as it stands in a transcript: arguments that are no JSON object are `{}`, for endpoints refuse all else."""
    calls = tuple(
        call
        if _is_json_object(call.arguments)
        else msgspec.structs.replace(call, arguments=EMPTY_OBJECT)
        for call in message.tool_calls
    )
    return msgspec.structs.replace(message, tool_calls=calls)


def _follow(tail: Tail, message: Message, where: str) -> Tail:
    """The end of the transcript once `message` is added."""
    if message.role is Role.TOOL:
        return _result(tail, message, where)
    if message.tool_call_id:
        raise InvalidCall(f"{where} names a tool call and is no result", hint="its role is `tool`")
    if tail.waiting:
        raise _unanswered(tail, f"{where} ({message.role.value}) is out of place")
    if message.role is Role.SYSTEM and tail.role is not None:
        raise InvalidCall(
            f"{where} is a system message in the middle of a conversation",
            hint="it can only be the first; say it in a user's message",
        )
    if message.role is Role.ASSISTANT and tail.role not in (Role.USER, Role.TOOL):
        raise InvalidCall(
            f"{where} is an assistant's and answers nothing",
            hint="an assistant speaks after a user or after the results of its calls",
        )
    return Tail(message.role, dict.fromkeys(_calls(message, where)))


def _calls(message: Message, where: str) -> list[str]:
    """The ids of the calls in a message."""
    if message.tool_calls and message.role is not Role.ASSISTANT:
        raise InvalidCall(f"{where} calls tools and is not an assistant's")
    ids = [call.id for call in message.tool_calls]
    if not all(ids) or len(set(ids)) < len(ids):
        raise InvalidCall(f"{where} has tool calls without an id of their own: {_named(ids)}")
    for call in message.tool_calls:
        if not _is_json_object(call.arguments):
            raise InvalidCall(
                f"{where}: the arguments of tool call {_named([call.id])} are no JSON object: {call.arguments[:100]!r}",
                hint="endpoints refuse a whole conversation for that; use `{}`",
            )
    return ids


def _result(tail: Tail, message: Message, where: str) -> Tail:
    call_id = message.tool_call_id
    if call_id in tail.answered:
        raise InvalidCall(f"{where} is a second result of tool call {_named([call_id])}")
    if call_id not in tail.waiting:
        raise InvalidCall(
            f"{where} is the result of tool call {_named([call_id])}, which does not wait for one",
            hint=f"calls that do: {_named(tail.waiting) or 'none'}",
        )
    if message.tool_calls:
        raise InvalidCall(f"{where} calls tools and is not an assistant's")
    del tail.waiting[call_id]
    tail.answered.add(call_id)
    tail.role = Role.TOOL
    return tail


def _unanswered(tail: Tail, what: str) -> InvalidCall:
    return InvalidCall(
        f"{what}: tool calls {_named(tail.waiting)} have no results yet",
        hint="add a tool message for each first; what could not be run has an error as its result",
    )


def _named(ids: Collection[str]) -> str:
    """Ids of calls as errors name them: their number and length are the caller's."""
    named = [repr(each[:SHOWN_CHARS]) for each in islice(ids, SHOWN_IDS)]
    more = [f"{len(ids) - SHOWN_IDS} more"] if len(ids) > SHOWN_IDS else []
    return ", ".join(named + more)


def _is_json_object(text: str) -> bool:
    if text.lstrip()[:1] != "{":
        return False
    try:
        from_json(text, msgspec.Raw)  # makes no values: they could be tens of millions
    except (ValueError, RecursionError):
        return False
    return True
