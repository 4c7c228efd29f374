"""What the audit log says of one act, and how each record vouches for those before it. Pure.

Each record carries HMAC-SHA256(key, the code of the record before it + its own fields). So a record that is changed, moved, taken
out or put in breaks the chain at its place. Both ends are marked in the same way, so that cutting them off shows, too.
Source: Bellare and Yee, "Forward integrity for secure audit logs" (1997), without their change of keys.
"""

import hmac
import re
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from aios.abi.call import Answer, Call

KEY_BYTES = 32
NO_CODE: Final = bytes(32)
"""What stands before the first record."""
SUBJECT_CHARS = 300

_SUBJECT_FIELDS: Final = (
    "pid", "name", "names", "program", "path", "paths", "to", "topic", "source", "target", "folder", "id", "code", "limits", "edits",
)  # fmt: skip
_EDIT_FIELDS: Final = ("path", "source", "target")
_TOKEN = re.compile(r"aios_[A-Za-z0-9_-]{16,}")


class Kind(Enum):
    """What an audit record is about."""

    BEGIN = "begin"  # a kernel begins to write here
    EFFECT = "effect"  # a call is about to have an effect
    DENIED = "denied"  # a call was refused
    ASKED = "asked"  # a human is asked whether an act may be, or something in words
    ANSWERED = "answered"
    EXPIRED = "expired"  # nobody answered in time
    TOKEN = "token"  # noqa: S105 - a process was given a token


class Act(Struct, frozen=True):
    """What the log says of one act. `number` is that of the call in the journal of its process, where its outcome stands."""

    unix_us: int
    pid: int
    number: int
    kind: Kind
    call: str = ""
    effect: str = ""
    subject: str = ""
    """Whom or what it is done to: pids, names and paths, never what is written there."""
    digest: bytes = b""
    """SHA-256 of the whole call, as in the journal."""


class Link(Struct, frozen=True):
    """An act at its place in the chain."""

    seq: int
    act: Act
    code: bytes


class Mark(Enum):
    """An end of the chain."""

    BASE = "base"  # the last record that was let go of; 0 before the first
    HEAD = "head"  # the last record


def code_of(key: bytes, before: bytes, seq: int, act: Act) -> bytes:
    """The code of a record behind the one that has the code `before`. Cost: 2 us."""
    fields = (seq, act.unix_us, act.pid, act.number, act.kind.value, act.call, act.effect, act.subject, act.digest)  # fmt: skip
    return hmac.digest(key, before + msgspec.msgpack.encode(fields), "sha256")


def seal_of(key: bytes, mark: Mark, seq: int, code: bytes) -> bytes:
    """What shows that an end of the chain is where it was put."""
    return hmac.digest(key, msgspec.msgpack.encode((mark.value, seq, code)), "sha256")


def subject_of(call: Call[Answer]) -> str:
    """Whom or what a call is about, in one line: pids, names and paths. What looks like a token is left out."""
    parts = []
    for name in _SUBJECT_FIELDS:
        value: object = getattr(call, name, None)
        if value is None or value == "":
            continue
        if name == "edits" and isinstance(value, tuple):
            parts += [_edit(edit) for edit in value[:10]]
            parts += [f"and {len(value) - 10} more"] if len(value) > 10 else []
        elif isinstance(value, msgspec.Struct):
            parts.append(f"{name}={msgspec.json.encode(value).decode()}")
        elif isinstance(value, tuple):
            parts.append(f"{name}={','.join(str(each) for each in value[:10])}")
        else:
            parts.append(f"{name}={value}")
    text = _TOKEN.sub("aios_...", " ".join(parts)).encode("utf-8", "replace").decode()
    return text if len(text) <= SUBJECT_CHARS else f"{text[:SUBJECT_CHARS]}..."


def _edit(edit: object) -> str:
    tag = edit.__struct_config__.tag if isinstance(edit, msgspec.Struct) else ""
    named = (str(getattr(edit, name)) for name in _EDIT_FIELDS if getattr(edit, name, None))
    return f"{tag}:{'>'.join(named)}"
