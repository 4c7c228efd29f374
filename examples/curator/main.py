"""Enriches notes that agents keep, when nobody else needs the model: keywords become tags, and notes that belong together are linked.

A model chooses under a grammar that leaves it nothing to invent: keywords are words of the note, links go to notes that a search has
found near it. So even a small model does no harm. A note gets its tags in place: its text, origin, age and uses stay. The tag `curated`
says that it was looked at. It ends before its budget does.

Source: note construction and link generation of A-MEM, arXiv 2502.12110, without its rewriting of notes.
"""

import re
from typing import Literal

import msgspec
from msgspec import Struct

import aios
from aios.abi.memory import Note
from aios.errors import AccessDenied, Conflict, EngineFailed, NotFound

CURATED = "curated"
MAX_KEYWORDS, MAX_LINKS = 3, 3
MIN_WORD_CHARS, MAX_WORD_CHARS, MAX_WORDS = 4, 64, 40
MAX_TAGS = 32
PROMPT_CHARS = 1_200
ANSWER_TOKENS = 60
PROMPT_TOKENS = 900
"""Of one call, at most: what must be left of the budget for another note."""


class Choice(Struct):
    """What the model says about a note."""

    keywords: list[str] = []
    related: list[int] = []


def main(
    client: aios.blocking.Client,
    *,
    limit: int = 50,
    scope: Literal["shared", "group"] = "shared",
    dry_run: bool = False,
) -> str:
    """Look at the notes of a scope that were not looked at yet, at most `limit` of them."""
    pid = client.getpid().pid
    n_notes = n_links = 0
    waiting = [note for note in client.memory.notes(scopes=[scope]) if CURATED not in note.tags]
    for note in waiting[:limit]:
        if not has_left(client, pid):
            return f"{n_notes} notes, {n_links} links; the budget is used up, run it again for the rest"
        near = neighbours(client, note.id, note.text, scope)
        keywords, related = choose(client, note.text, near)
        if dry_run:
            client.log(f"note {note.id}: {', '.join(keywords)}; links {related}")
            continue
        n_links += keep(client, note, keywords, related)
        n_notes += 1
    return f"{n_notes} notes, {n_links} links"


def has_left(client: aios.blocking.Client, pid: int) -> bool:
    """Whether the budget lets one more note be looked at."""
    left = client.budget(pid).left
    prompt, completion = left.prompt_tokens, left.completion_tokens
    return (prompt is None or prompt >= PROMPT_TOKENS) and (
        completion is None or completion >= ANSWER_TOKENS
    )


def neighbours(
    client: aios.blocking.Client, note: int, text: str, scope: Literal["shared", "group"]
) -> dict[int, str]:
    """Notes that a search finds near it and that it is not linked with yet."""
    linked = {note, *client.memory.get(note).links}
    hits = client.memory.recall(text[:PROMPT_CHARS], 2 * MAX_LINKS, scopes=[scope]).hits
    found = {hit.note.id: hit.note.text for hit in hits if hit.note.id not in linked}
    return dict(list(found.items())[:MAX_LINKS])


def choose(
    client: aios.blocking.Client, text: str, near: dict[int, str]
) -> tuple[list[str], list[int]]:
    """Let the model choose keywords and related notes."""
    words = words_of(text)
    if not words and not near:
        return [], []
    parts = {"keywords": options(words, MAX_KEYWORDS), "related": options(list(near), MAX_LINKS)}
    schema = {
        "type": "object",
        "properties": parts,
        "required": list(parts),
        "additionalProperties": False,
    }
    others = "".join(f"\nNote {number}: {other[:200]}" for number, other in near.items())
    asked = (
        f"A note: {text[:PROMPT_CHARS]}\n{others}\n\n"
        "Choose the words that say best what the note is about, and the numbers of the notes that have to do with it."
    )
    reply = client.chat(asked, schema=schema, max_tokens=ANSWER_TOKENS, temperature=0)
    try:
        chosen = msgspec.convert(reply.parsed, Choice)
    except EngineFailed:  # it was cut off: this note is left with what it has
        return [], []
    keywords = [word for word in dict.fromkeys(chosen.keywords) if word in words]
    return keywords, [number for number in dict.fromkeys(chosen.related) if number in near]


def options(values: list[str] | list[int], n_most: int) -> dict[str, object]:
    """A schema of a list of some of these values."""
    if not values:
        return {"type": "array", "maxItems": 0}
    return {"type": "array", "items": {"enum": values}, "maxItems": n_most}


def words_of(text: str) -> list[str]:
    """The words of a note that may be tags, longest first."""
    words = {word.casefold() for word in re.findall(r"[^\W\d_]+", text)}
    fitting = [word for word in words if MIN_WORD_CHARS <= len(word) <= MAX_WORD_CHARS]
    return sorted(fitting, key=lambda word: (-len(word), word))[:MAX_WORDS]


def keep(client: aios.blocking.Client, note: Note, tags: list[str], related: list[int]) -> int:
    """Write what was chosen. Returns: how many links are new."""
    room = MAX_TAGS - len({*note.tags, CURATED})
    try:
        client.memory.tag(
            note.id, add=[*[tag for tag in tags if tag not in note.tags][:room], CURATED]
        )
        for other in related:
            client.memory.link(note.id, other)
    except (NotFound, Conflict, AccessDenied):
        return 0  # it was forgotten or replaced meanwhile, or is another owner's
    return len(related)


if __name__ == "__main__":
    aios.run(main)
