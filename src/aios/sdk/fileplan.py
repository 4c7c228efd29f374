"""Commands about files in plain words, as plans. Pure: a model proposes, this decides what may be done.

A plan may only name what the command says: every name and text in it is a piece of the command, word for word. So a model that is wrong, or a
hostile endpoint, can mix up what was said but cannot bring in a path or a text of its own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import msgspec
from msgspec import Struct

from aios.abi.retrieval import FileHit
from aios.abi.types import JsonObject
from aios.errors import InvalidCall

MAX_COMMAND_CHARS = 500
MAX_STEPS = 8
MAX_SPAN_WORDS = 8
MAX_SPANS = 300
CLEAR_LEAD = 1.5
"""A hit by meaning is taken without asking when its score is so many times that of the next."""


class Do(StrEnum):
    """What a step does."""

    FIND = "find"
    MOVE = "move"
    COPY = "copy"
    DELETE = "delete"
    WRITE = "write"
    APPEND = "append"
    PURGE = "purge"


FIELDS: Mapping[Do, tuple[str, ...]] = MappingProxyType(
    {
        Do.FIND: ("source",),
        Do.MOVE: ("source", "target"),
        Do.COPY: ("source", "target"),
        Do.DELETE: ("source",),
        Do.WRITE: ("target", "text"),
        Do.APPEND: ("target", "text"),
        Do.PURGE: ("source",),
    }
)
"""What each kind of step names; nothing else may be set."""

IRREVERSIBLE = frozenset({Do.PURGE})

SAID_BY: Mapping[Do, re.Pattern[str]] = MappingProxyType(
    {
        Do.DELETE: re.compile(r"(?i)\b(delete|remove|rm|erase|discard|trash|drop|throw|get rid)"),
        Do.PURGE: re.compile(r"(?i)\b(purge|permanently|for good|for ever|forever)"),
    }
)
"""Without such a word in the command a step that takes something away is not meant: small models like to add some."""


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """A step in the words of the command."""

    do: Do
    source: str = ""
    target: str = ""
    text: str = ""


class Wishes(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model made of a command."""

    steps: tuple[Wish, ...]


class PlannedStep(Struct, frozen=True):
    """A step with the paths that it is about. `candidates` are the files that its words could mean when that is not clear."""

    do: Do
    words: str
    paths: tuple[str, ...] = ()
    target: str = ""
    text: str = ""
    why: str = ""
    candidates: tuple[str, ...] = ()

    def said(self) -> str:
        """The step in a line."""
        what = ", ".join(self.paths) or f"{self.words!r}"
        match self.do:
            case Do.MOVE | Do.COPY:
                return f"{self.do} {what} to {self.target}"
            case Do.WRITE | Do.APPEND:
                return f"{self.do} {self.text!r} to {self.target}"
            case Do.PURGE:
                return f"purge {what}: delete it with all versions, for good"
            case Do.FIND | Do.DELETE:
                return f"{self.do} {what}"


class FilePlan(Struct, frozen=True):
    """What would be done for a command. Nothing has been done; `problems` say why it cannot be."""

    command: str
    steps: tuple[PlannedStep, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Every step says what it is about, and may be taken."""
        return bool(self.steps) and not self.problems

    @property
    def is_irreversible(self) -> bool:
        """One of the steps cannot be undone."""
        return any(step.do in IRREVERSIBLE for step in self.steps)


def spans(command: str) -> list[str]:
    """The pieces of a command that a plan may name: what stands in quotation marks, and runs of its words, longest last."""
    found = dict.fromkeys(
        each for pair in re.findall(r"\"([^\"]+)\"|'([^']+)'", command) for each in pair if each
    )
    words = command.split()
    for n_words in range(1, MAX_SPAN_WORDS + 1):
        for begin in range(len(words) - n_words + 1):
            if piece := _bare(" ".join(words[begin : begin + n_words])):
                found[piece] = None
    return list(found)[:MAX_SPANS]


def schema_for(command: str) -> JsonObject:
    """The JSON Schema of the plans for a command: each kind of step with the names that the command has."""
    kinds: list[object] = []
    for do, fields in FIELDS.items():
        properties: dict[str, object] = {"do": {"const": do.value}}
        properties |= {field: {"$ref": "#/$defs/said"} for field in fields}
        kinds.append(
            {
                "type": "object",
                "properties": properties,
                "required": ["do", *fields],
                "additionalProperties": False,
            }
        )
    return {
        "type": "object",
        "properties": {
            "steps": {
                "type": "array",
                "items": {"anyOf": kinds},
                "minItems": 1,
                "maxItems": MAX_STEPS,
            }
        },
        "required": ["steps"],
        "additionalProperties": False,
        "$defs": {"said": {"enum": spans(command)}},
    }


def wishes_of(answer: str, command: str) -> tuple[Wish, ...]:
    """The steps that a model proposed, if all of them may be meant.

    Raises:
        InvalidCall: It is no plan, or names what the command does not say.
    """
    hint = "say it in other words, or use `aios fs mv`, `cp`, `rm`"
    try:
        wishes = msgspec.json.decode(answer, type=Wishes).steps
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidCall(f"the model made no plan of that: {error}", hint=hint) from error
    if not 1 <= len(wishes) <= MAX_STEPS:
        raise InvalidCall(f"a plan has 1 to {MAX_STEPS} steps, not {len(wishes)}", hint=hint)
    wishes = tuple(dict.fromkeys(wishes))  # small models repeat themselves
    for wish in wishes:
        if wish.do in SAID_BY and not SAID_BY[wish.do].search(command):
            raise InvalidCall(
                f"the model's plan has a `{wish.do}`, which the command does not say", hint=hint
            )
        for field in ("source", "target", "text"):
            value = getattr(wish, field)
            if (field in FIELDS[wish.do]) != bool(value):
                raise InvalidCall(
                    f"a step `{wish.do}` with {field} {value!r} means nothing", hint=hint
                )
            if value and not _is_said(value, command):
                raise InvalidCall(
                    f"the model's plan names {value[:80]!r}, which the command does not say",
                    hint=hint,
                )
    return wishes


def _is_said(value: str, command: str) -> bool:
    """Whether a command has this piece, at the borders of words."""
    said = f" {' '.join(command.split())} "
    return re.search(rf"(?<!\w){re.escape(' '.join(value.split()))}(?!\w)", said) is not None


# --- from words to paths -----------------------------------------------------------------------------------------

_FILLING = frozenset(
    [
        "a",
        "all",
        "an",
        "and",
        "any",
        "called",
        "every",
        "file",
        "files",
        "folder",
        "folders",
        "document",
        "documents",
        "in",
        "into",
        "my",
        "named",
        "of",
        "our",
        "the",
        "this",
        "that",
        "to",
        "with",
    ]
)
_ALL = re.compile(r"(?i)\b(all|every)\b")
_WORD = re.compile(r"[^\W_]+")


class Choice(Struct, frozen=True):
    """What a name means: `paths` and how that was found, or else `candidates` to choose from."""

    paths: tuple[str, ...] = ()
    why: str = ""
    candidates: tuple[str, ...] = ()


def choose(name: str, hits: Sequence[FileHit]) -> Choice:
    """The files that a name means, by the hits of a search for it, best first.

    By name before by meaning; more than one only if the words ask for all. What is not clear is not chosen.
    """
    telling = _telling(name)
    named = [hit.path for hit in hits if telling and telling <= _telling(hit.path)]
    if len(named) == 1 or (named and _ALL.search(name)):
        return Choice(tuple(named), "by name")
    if named:
        return Choice(candidates=tuple(named))
    if not hits:
        return Choice()
    if len(hits) == 1 or hits[0].score >= CLEAR_LEAD * hits[1].score:
        return Choice((hits[0].path,), "; ".join(("by content", *hits[0].why)))
    return Choice(candidates=tuple(hit.path for hit in hits))


def place_of(words: str, near: str) -> str:
    """The path that a target means: an absolute one as it is, else inside the agent's, group's or mount's folder of the path `near`."""
    bare = " ".join(word for word in words.split() if word.lower() not in _FILLING) or words
    if bare.startswith("/"):
        return bare.rstrip("/")
    inside = bare if "/" in bare else bare.replace(" ", "-")
    return (
        "/".join((*_root(near), inside.strip("/"))) if near.startswith("/") else inside.strip("/")
    )


def lands_at(target: str, source: str, *, is_folder: bool) -> str:
    """Where a file or folder comes to lie: inside of a folder, or at the very path if that has an extension."""
    name = source.rpartition("/")[2]
    if not is_folder and "." in target.rpartition("/")[2]:
        return target
    return f"{target}/{name}"


def overlaps(steps: Sequence[PlannedStep]) -> Iterator[str]:
    """What steps of one plan would do to the same path; the plan would not mean what it shows."""
    seen: set[str] = set()
    for step in steps:
        if step.do is Do.FIND:
            continue
        for path in step.paths or filter(None, (step.target,)):
            if path in seen:
                yield f"two steps change {path}"
            seen.add(path)


def _root(path: str) -> tuple[str, ...]:
    parts = path.split("/")
    return tuple(parts[: 3 if parts[1] in ("agents", "groups") else 2])


def _telling(text: str) -> set[str]:
    """The words of a name or path, without those that say nothing, and without an `s` at the end."""
    words = (word.lower() for word in _WORD.findall(text))
    return {word.removesuffix("s") for word in words if word not in _FILLING}


def _bare(text: str) -> str:
    return text.strip(" \t\n\"'`.,;:!?()")
