"""What leaves a full window, and how it comes back. Pure.

    [system] turn turn turn ...        turn = [user+] round*        round = assistant, the results of all its calls

Old turns leave whole, also from behind what is pinned at their head. Of the last turn, which is being answered, and of turns
with something else pinned in them, only rounds leave, each with all its results; a turn's own question stays with what is left
of it. So whatever leaves, a valid transcript stays. A note, which is a user's message, takes the place of the first that left.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter

import msgspec
from msgspec import Struct

from aios.abi.contexts import Cut
from aios.abi.types import Message, Role
from aios.errors import Conflict, InvalidCall, NotFound
from aios.kernel.context.transcript import (
    Item,
    Items,
    Rewrite,
    Transcript,
    extended,
    new_item,
)

CHARS_A_TOKEN = 4
"""For engines that cannot count: about what English takes."""
MESSAGE_TOKENS = 8
"""What a template adds to a message, in such an estimate."""
EXCERPT_CHARS = 80
FAULT = "fault"
"""What a rewrite is called that brings a page back."""
MAX_REWRITES = 64
"""Compactions of one context that can be undone; the oldest are forgotten first."""


class Span(Struct, frozen=True):
    """Items that leave together, from `start` to before `stop`."""

    start: int
    stop: int


def removable(items: Items) -> list[Span]:
    """What may leave, the oldest first."""
    turns = _turns(items)
    spans: list[Span] = []
    for i, turn in enumerate(turns):
        is_last = i == len(turns) - 1
        asked = _behind_pinned(items, turn)
        if not is_last and asked is not None and not _has_pinned(items, asked):
            notes = _notes(items, turn)
            spans += [*(note for note in notes if note.stop <= asked.start), asked]
            continue
        rounds = _rounds(items, turn)
        parts = _notes(items, turn) + (rounds[:-1] if is_last else rounds)
        spans += [part for part in parts if not _has_pinned(items, part)]
    return spans


def without(items: Items, spans: Sequence[Span], note: Item | None = None) -> Items:
    """The items that stay, with a note in the place of the first that left."""
    kept: list[Item] = []
    position = 0
    for i, span in enumerate(spans):
        kept += items[position : span.start]
        if i == 0 and note is not None:
            kept.append(msgspec.structs.replace(note, number=items[span.start].number))
        position = span.stop
    return (*kept, *items[position:])


def within(items: Items, spans: Sequence[Span]) -> Items:
    """The items that leave."""
    return tuple(item for span in spans for item in items[span.start : span.stop])


def pointer_note(pointer: int, leaving: Items) -> Item:
    """What stands for messages that were paged out."""
    first = next((text for item in leaving if (text := item.message.text().strip())), "")
    text = (
        f"[{len(leaving)} earlier messages have left this window. `context_fault` with pointer {pointer} reads them back. "
        f'They begin: "{first[:EXCERPT_CHARS]}"]'
    )
    return new_item(Message(Role.USER, text), is_note=True, pointer=pointer)


def summary_note(summary: str) -> Item:
    """What stands for messages that were summarised."""
    text = f"[Earlier messages have left this window. A summary of them: {summary.strip()}]"
    return new_item(Message(Role.USER, text), is_note=True)


def shown(items: Items) -> tuple[Message, ...]:
    """What a model is shown. A note becomes part of the user's message after it: some templates want turns to alternate."""
    messages: list[Message] = []
    notes: list[str] = []
    for item in items:
        message = item.message
        if item.is_note:
            notes.append(message.text())
            continue
        if notes and message.role is Role.USER and isinstance(message.content, str):
            text = "\n\n".join([*notes, message.content])
            messages.append(msgspec.structs.replace(message, content=text))
        else:
            messages += [*(Message(Role.USER, note) for note in notes), message]
        notes = []
    return (*messages, *(Message(Role.USER, note) for note in notes))


def rewritten(before: Transcript, after: Items, rewrite: Rewrite) -> Transcript:
    """A transcript with other items, such that `undone` brings back the old ones. Of `rewrite` the numbers count."""
    items = before.items
    at = 0
    while at < min(len(items), len(after)) and items[at] is after[at]:
        at += 1
    n_same = 0
    while n_same < min(len(items), len(after)) - at and items[-1 - n_same] is after[-1 - n_same]:
        n_same += 1
    rewrite = msgspec.structs.replace(
        rewrite,
        at=at,
        removed=items[at : len(items) - n_same],
        n_put=len(after) - n_same - at,
    )
    rewrites = (*before.rewrites, rewrite)[-MAX_REWRITES:]
    return msgspec.structs.replace(before, items=after, rewrites=rewrites)


def cut_out(before: Transcript, spans: Sequence[Span], rewrite: Rewrite) -> Transcript:
    """A transcript without these items, with the note of `rewrite` for them, and with a page of them if the note leads to one."""
    note, leaving = rewrite.note, within(before.items, spans)
    places: list[tuple[int, int]] = []
    for span in spans:
        start = places.pop()[0] if places and places[-1][1] == span.start else span.start
        places.append((start, span.stop))
    rewrite = msgspec.structs.replace(rewrite, n_messages=len(leaving), spans=tuple(places))
    after = rewritten(before, without(before.items, spans, note), rewrite)
    is_paged = note is not None and note.pointer
    return msgspec.structs.replace(after, pages=(*after.pages, leaving)) if is_paged else after


def cut_again(transcript: Transcript, cut: Cut) -> Transcript:
    """A transcript from which the same leaves as before; as it is if that cannot be, for it has not the messages that it had."""
    spans = [Span(start, stop) for start, stop in cut.spans]
    ends = [0, *(end for span in spans for end in (span.start, span.stop)), len(transcript.items)]
    if ends != sorted(ends):
        return transcript
    told, note = cut.compaction, None
    if cut.note:
        message = Message(Role.USER, cut.note)
        note = new_item(message, is_note=True, pointer=cut.pointer)
    rewrite = Rewrite(
        told.what,
        told.n_messages,
        n_tokens_before=told.n_tokens_before,
        n_tokens_after=told.n_tokens_after,
        is_estimated=told.is_estimated,
        unix_s=told.unix_s,
        note=note,
    )
    after = cut_out(transcript, spans, rewrite)
    if cut.pointer not in {0, len(after.pages)} or after.rewrites[-1].n_messages != told.n_messages:
        return transcript
    try:
        extended((), [item.message for item in after.items])
    except InvalidCall:
        return transcript
    return after


def undone(transcript: Transcript) -> Transcript:
    """The transcript as it was before its last rewrite, with all that was added since.

    A page that it cut out goes, and its pointer leads nowhere from now on: its messages are back.

    Raises:
        Conflict: There is none to undo.
    """
    if not transcript.rewrites:
        raise Conflict(
            "no compaction of this context is left to undo",
            hint="old ones are forgotten when a context is full",
        )
    last = transcript.rewrites[-1]
    items = transcript.items
    stop = last.at + last.n_put
    restored = (*items[: last.at], *last.removed, *items[stop:])
    new: set[int] = set()
    if last.what != FAULT:  # which cuts nothing out, and may have brought notes of older pages
        # Notes that stayed between what left stand on both sides.
        new = {item.pointer for item in items[last.at : stop]} - {i.pointer for i in last.removed}
    pages = (() if n in new else page for n, page in enumerate(transcript.pages, 1))
    return Transcript(restored, transcript.rewrites[:-1], tuple(pages))


def slimmed(transcript: Transcript, max_bytes: int) -> Transcript:
    """The transcript with so few compactions left to undo that it takes `max_bytes`, and then so few pages; if that is enough.

    The oldest go first. The pointers of pages that went lead nowhere.
    """
    n_over = transcript.size_bytes - max_bytes
    if n_over <= 0 or not (transcript.rewrites or any(transcript.pages)):
        return transcript
    n_forgotten = 0
    for rewrite in transcript.rewrites:
        if n_over <= 0:
            break
        n_over -= sum(item.size_bytes for item in rewrite.removed)
        n_forgotten += 1
    pages = list(transcript.pages)
    for i, each in enumerate(transcript.pages):
        if n_over <= 0:
            break
        n_over -= sum(item.size_bytes for item in each)
        pages[i] = ()
    rewrites = transcript.rewrites[n_forgotten:]
    return msgspec.structs.replace(transcript, rewrites=rewrites, pages=tuple(pages))


def page(transcript: Transcript, pointer: int) -> Items:
    """What a pointer leads to.

    Raises:
        NotFound: Nothing.
    """
    if not 1 <= pointer <= len(transcript.pages):
        raise NotFound(
            f"the context has no pointer {pointer}; it has {len(transcript.pages)}",
            hint="the notes in the context name them",
        )
    found = transcript.pages[pointer - 1]
    if not found:
        raise NotFound(
            f"pointer {pointer} leads nowhere any more: its compaction was undone, or the context was full",
            hint="what was undone is in the context again; to keep more, raise context.max_bytes",
        )
    return found


def faulted_in(transcript: Transcript, pointer: int, *, unix_s: float) -> Transcript:
    """The transcript with the messages of a page where they were, also between pinned ones that stayed; their note is gone.

    Raises:
        Conflict: The note is not in the window.
        NotFound: There is no such page.
    """
    restored = page(transcript, pointer)
    items = transcript.items
    at = next((i for i, item in enumerate(items) if item.pointer == pointer), None)
    if at is None:
        raise Conflict(
            f"the note of pointer {pointer} is not in the window",
            hint="it has left it in its turn, or was restored: fault in the newer pointer, or only read it",
        )
    after = tuple(sorted((*items[:at], *restored, *items[at + 1 :]), key=attrgetter("number")))
    try:
        extended((), [item.message for item in after])
    except InvalidCall as error:
        raise Conflict(
            f"page {pointer} was cut out around messages that stayed, and cannot come back in one piece",
            hint="only read it, or undo the compaction",
        ) from error
    return rewritten(transcript, after, Rewrite(FAULT, len(restored), unix_s=unix_s))


def estimated_tokens(messages: Sequence[Message], n_extra_chars: int = 0) -> int:
    """About how many tokens a conversation takes, from its characters."""
    n_chars = n_extra_chars + sum(
        len(m.text()) + sum(len(c.name) + len(c.arguments) for c in m.tool_calls) for m in messages
    )
    return n_chars // CHARS_A_TOKEN + MESSAGE_TOKENS * len(messages)


def _turns(items: Items) -> list[Span]:
    """The turns of a conversation: each begins with the first of its user's messages. A note alone begins none."""
    starts: list[int] = []
    first: int | None = None
    for i, item in enumerate(items):
        if item.message.role is not Role.USER:
            first = None
            continue
        first = i if first is None else first
        if not item.is_note and (not starts or starts[-1] != first):
            starts.append(first)
    return [Span(a, b) for a, b in pairwise([*starts, len(items)])]


def _behind_pinned(items: Items, turn: Span) -> Span | None:
    """A turn from the first question that stands behind all that is pinned at its head; None if none does."""
    start, is_asked = turn.start, False
    for i in range(turn.start, turn.stop):
        if items[i].message.role is not Role.USER:
            break
        if items[i].is_pinned:
            start, is_asked = i + 1, False
        elif not items[i].is_note:
            is_asked = True
    return Span(start, turn.stop) if is_asked else None


def _notes(items: Items, turn: Span) -> list[Span]:
    """The notes before the first round of a turn."""
    notes = []
    for i in range(turn.start, turn.stop):
        if items[i].message.role is not Role.USER:
            break
        if items[i].is_note:
            notes.append(Span(i, i + 1))
    return notes


def _rounds(items: Items, turn: Span) -> list[Span]:
    """The rounds of a turn: each begins with a message of the assistant."""
    places = range(turn.start, turn.stop)
    starts = [i for i in places if items[i].message.role is Role.ASSISTANT]
    return [Span(a, b) for a, b in pairwise([*starts, turn.stop])]


def _has_pinned(items: Items, span: Span) -> bool:
    return any(item.is_pinned for item in items[span.start : span.stop])
