"""Manifests: files that describe tools which are programs of the operating system, or agents.

    name = "text/words"
    description = "Count the words of a text."
    command = ["wc", "-w"]
    stdin = "{text}"

    [parameters]
    type = "object"
    properties.text = { type = "string" }
    required = ["text"]

    [traits]
    effect = "pure"

A command is a list of words, never a line for a shell, and an argument stays within its word whatever is in it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from aios.abi.tools import MAX_RESULT_BYTES, ToolName, Traits
from aios.abi.types import JsonObject
from aios.errors import InvalidCall, NotFound
from aios.malformed import named
from aios.manifestfile import read_manifest as read_table
from aios.readers import convert
from aios.sizes import sized

MAX_MANIFEST_BYTES = 128 << 10
MAX_COMMAND_BYTES = 128 << 10
MAX_WORDS = 4_096
NO_PARAMETERS: Mapping[str, object] = MappingProxyType(
    {"type": "object", "additionalProperties": False}
)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Word = Annotated[str, Meta(max_length=4096)]
Bound = Annotated[int, Meta(ge=1, le=1 << 50)]


class Bounds(Struct, frozen=True, forbid_unknown_fields=True):
    """What one run may take: memory of each of its processes, processor time, the size of a file that it writes, open files."""

    memory_bytes: Bound = 2 << 30
    cpu_s: Annotated[int, Meta(ge=1, le=86_400)] = 600
    file_bytes: Bound = 256 << 20
    n_files: Annotated[int, Meta(ge=16, le=4096)] = 256
    output_bytes: Annotated[int, Meta(ge=1, le=MAX_RESULT_BYTES)] = 1 << 20


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """One tool. `program` makes it an agent: that folder is spawned as a child of the caller, `command` are its arguments."""

    name: ToolName
    description: Annotated[str, Meta(min_length=1, max_length=4096)]
    command: Annotated[tuple[Word, ...], Meta(max_length=256)] = ()
    program: Word = ""
    stdin: Annotated[str, Meta(max_length=4096)] = ""
    """What it reads: a template, or `json` for all arguments as one JSON object."""
    output: Literal["text", "json"] = "text"
    env: Annotated[dict[Word, Word], Meta(max_length=64)] = {}
    read: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    """Files and folders of this machine that it reads, beside the system and what its command names; `~` is yours."""
    write: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    """The same, to change."""
    network: Annotated[tuple[Word, ...], Meta(max_length=256)] = ()
    """Of the hosts that `egress.hosts` allows, those that it may reach through the proxy, whoever calls it."""
    parameters: JsonObject = msgspec.field(default_factory=lambda: dict(NO_PARAMETERS))
    returns: JsonObject | None = None
    traits: Traits = Traits()
    bounds: Bounds = Bounds()


def read_manifest(file: Path) -> Manifest:
    """The tool that a file describes; a relative `program` is beside the file.

    Raises:
        InvalidCall: It is malformed; the message names the field.
        NotFound: It is not there or cannot be read.
    """
    try:
        table = read_table(file, MAX_MANIFEST_BYTES)
        found = convert(sized(table, "bounds"), Manifest)
        program = str((file.parent / found.program).resolve())
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}", hint="check the path") from error
    except (RuntimeError, ValueError) as error:  # those of tomllib and msgspec are, too
        raise InvalidCall(
            f"{file} is no manifest of a tool: {named(error)}", hint="see docs/guides/tools.md"
        ) from error
    if not found.command and not found.program:
        raise InvalidCall(f"{file} has neither `command` nor `program`", hint="give one of them")
    if not found.program:
        return found
    return msgspec.structs.replace(found, program=program)


def command_of(template: Sequence[str], arguments: Mapping[str, object]) -> list[str]:
    """The words of a command with arguments put in.

    A word that is nothing but `{name}` becomes one word for each item of a list; a word whose argument is missing is left out.

    Raises:
        InvalidCall: An argument would be taken for an option, holds NUL, or the whole is too long.
    """
    words: list[str] = []
    for part in template:
        only = _PLACEHOLDER.fullmatch(part)
        value = arguments.get(only[1]) if only else None
        if only and isinstance(value, list):
            found = [_text(each) for each in value]
        else:
            filled = fill(part, arguments)
            found = [] if filled is None else [filled]
        for word in found:
            if part.startswith("{") and word.startswith("-") and "--" not in words:
                raise InvalidCall(
                    f"{word[:80]!r} begins with `-` and would be taken for an option",
                    hint="begin it otherwise, such as ./-name",
                )
        words += found
    size_bytes = sum(len(word.encode("utf-8", "surrogatepass")) + 1 for word in words)
    if "\0" in "".join(words):
        raise InvalidCall("an argument holds NUL", hint="leave it out")
    if len(words) > MAX_WORDS or size_bytes > MAX_COMMAND_BYTES:
        raise InvalidCall(
            f"a command of {len(words)} words and {size_bytes} bytes is too long", hint="give less"
        )
    return words


def fill(template: str, arguments: Mapping[str, object]) -> str | None:
    """A text with arguments put in; None when one of them is missing."""
    names = _PLACEHOLDER.findall(template)
    if any(arguments.get(name) is None for name in names):
        return None
    return _PLACEHOLDER.sub(lambda found: _text(arguments[found[1]]), template)


def _text(value: object) -> str:
    """An argument as a word: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
