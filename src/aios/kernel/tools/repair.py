"""JSON as models write it: read it, and where it is not quite JSON, say what was taken for what. Pure.

Code fences and words around the object, single quotes, Python's True, False and None, bare keys, comments, commas too many or
missing, brackets that were never closed: each is read for what it must mean, and told. What could mean two things is refused.
"""

import re
from dataclasses import dataclass, field

import msgspec

from aios.abi.counting import count_values
from aios.abi.types import JsonObject
from aios.abi.wire import LARGE_BYTES
from aios.errors import InvalidCall

MAX_DEPTH = 64
MAX_REPAIRED_CHARS = 64 << 10
"""Longer texts are JSON or are refused: reading what is not costs 1 to 5 us a character, and no model writes so much."""
MAX_TEXT_VALUES = LARGE_BYTES
"""In one text: as many as a packet can hold that is not weighed. The door takes a text for one value, whatever is in it."""

_FENCE = re.compile(r"```(?:json|tool_call)?\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_SPACE = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/|#[^\n]*)*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:_\d+)*)?\.?\d*(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z_$][\w$-]*")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "`": "`"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class NotReadable(ValueError):
    """The text is not JSON, and what was meant is not clear. The message says where."""


@dataclass
class _Text:
    """A text that is read from left to right, and what was repaired on the way."""

    text: str
    at: int = 0
    repairs: dict[str, None] = field(default_factory=dict)

    def peek(self) -> str:
        """The next character, after space and comments; empty at the end."""
        space = _SPACE.match(self.text, self.at)
        if space is not None and space.end() > self.at:
            if any(sign in space[0] for sign in "/#"):
                self.note("comments were left out")
            self.at = space.end()
        return self.text[self.at : self.at + 1]

    def note(self, what: str) -> None:
        """Say what was repaired; once is enough."""
        self.repairs[what] = None

    def fail(self, what: str) -> NotReadable:
        """The error for what stands here."""
        return NotReadable(f"{what} at character {self.at + 1}")


def read_object(text: str) -> tuple[JsonObject, tuple[str, ...]]:
    """The JSON object in a text that a model wrote, and what had to be repaired; an empty text is an empty object.

    Raises:
        InvalidCall: It holds over `MAX_TEXT_VALUES` values.
        NotReadable: There is no object in it, or what was meant is not clear.
    """
    return read_plain(text) or _repaired(text)


def read_plain(text: str) -> tuple[JsonObject, tuple[str, ...]] | None:
    """The same of a text that is JSON, in no time; None if it must be repaired.

    Raises:
        InvalidCall: It holds over `MAX_TEXT_VALUES` values.
        NotReadable: It is no object, or too long to be repaired.
    """
    if not text.strip():
        return {}, ()
    strict = _strict(text)
    if isinstance(strict, dict):
        return strict, ()
    if isinstance(strict, str):  # an object in a string, as some models wrap it
        inner = _strict(strict)
        if isinstance(inner, dict):
            return inner, ("the object was wrapped in a string",)
    if strict is not _NOTHING:
        raise NotReadable(f"expected one JSON object, got {_kind(strict)}")
    if len(text) > MAX_REPAIRED_CHARS:
        raise NotReadable(f"no JSON, and over {MAX_REPAIRED_CHARS} characters are not repaired")
    return None


_NOTHING = object()


def _strict(text: str) -> object:
    _check_values(text)
    try:
        value: object = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return _NOTHING
    return value


def _check_values(text: str) -> None:
    if len(text) <= MAX_TEXT_VALUES:
        return
    if count_values(text.encode("utf-8", "replace"), MAX_TEXT_VALUES) > MAX_TEXT_VALUES:
        raise InvalidCall(
            f"the arguments are a text that holds over {MAX_TEXT_VALUES:,} values",
            hint="give them as an object; a long list is better one text in it, or a file",
        )


def _repaired(text: str) -> tuple[JsonObject, tuple[str, ...]]:
    reader = _Text(text)
    fence = _FENCE.search(text)
    if fence is not None and "{" in fence[1]:
        reader.note("the code fence was left out")
        reader.text = fence[1]
    begin = reader.text.find("{")
    if begin < 0:
        raise NotReadable("there is no JSON object in it")
    if reader.text[:begin].strip():
        reader.note("words before the object were left out")
    reader.at = begin
    found = _object(reader, 1)
    if reader.peek():
        rest = reader.text[reader.at :]
        if "{" in rest:
            raise reader.fail("there is a second object, where one was expected,")
        reader.note("words after the object were left out")
    return found, tuple(reader.repairs)


def _value(reader: _Text, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise reader.fail(f"more than {MAX_DEPTH} levels of nesting")
    first = reader.peek()
    if first == "{":
        return _object(reader, depth)
    if first == "[":
        return _array(reader, depth)
    if first in _QUOTES:
        return _string(reader)
    if first.isdigit() or (first and first in "+-."):
        return _number(reader)
    return _bare(reader)


def _object(reader: _Text, depth: int) -> JsonObject:
    found: JsonObject = {}
    reader.at += 1
    while not _is_at_end(reader, "}", "]"):
        key = _key(reader)
        if reader.peek() not in {":", "="}:
            raise reader.fail(f"no colon after the key {key!r}")
        if reader.peek() == "=":
            reader.note("`=` was taken for `:`")
        reader.at += 1
        if key in found:
            raise reader.fail(f"the key {key!r} stands there twice, the second time")
        found[key] = _value(reader, depth + 1)
        _comma(reader, "}")
    return found


def _array(reader: _Text, depth: int) -> list[object]:
    found: list[object] = []
    reader.at += 1
    while not _is_at_end(reader, "]", "}"):
        found.append(_value(reader, depth + 1))
        _comma(reader, "]")
    return found


def _is_at_end(reader: _Text, end: str, other: str) -> bool:
    """Whether the object or array ends here; one that was never closed ends with the text or with what holds it."""
    char = reader.peek()
    if char == end:
        reader.at += 1
        return True
    if not char or char == other:
        reader.note("brackets that were not closed were closed")
        return True
    return False


def _comma(reader: _Text, end: str) -> None:
    char = reader.peek()
    if char == ",":
        reader.at += 1
        if reader.peek() in {"}", "]", ","}:
            reader.note("commas too many were left out")
            while reader.peek() == ",":
                reader.at += 1
    elif char and char not in {"}", "]"}:
        if char in _QUOTES or char in "{[" or (end == "}" and _WORD.match(char)):
            reader.note("missing commas were put in")
        else:
            raise reader.fail(f"{char!r} where a comma or {end!r} was expected")


def _key(reader: _Text) -> str:
    if reader.peek() in _QUOTES:
        return _string(reader)
    word = _WORD.match(reader.text, reader.at)
    if word is None:
        raise reader.fail("no key")
    reader.note("keys without quotes were taken as they stand")
    reader.at = word.end()
    return word[0]


def _string(reader: _Text) -> str:
    """A string in any quotes. Raw line ends in it are taken as they stand; JSON would have them escaped."""
    quote = reader.text[reader.at]
    end = _QUOTES[quote]
    if quote != '"':
        reader.note(f'quotes of another kind ({quote}) were taken for `"`')
    pieces: list[str] = []
    i = reader.at + 1
    while i < len(reader.text):
        char = reader.text[i]
        if char == end:
            reader.at = i + 1
            return "".join(pieces)
        if char == "\\":
            piece, i = _escape(reader, i + 1)
            pieces.append(piece)
            continue
        if char < " ":
            reader.note("control characters in strings were taken as they stand")
        pieces.append(char)
        i += 1
    raise reader.fail("a string that begins and does not end")


def _escape(reader: _Text, i: int) -> tuple[str, int]:
    """The character of an escape, and where the text goes on."""
    char = reader.text[i : i + 1]
    if char == "u":
        code = reader.text[i + 1 : i + 5]
        if not re.fullmatch(r"[0-9A-Fa-f]{4}", code):
            raise reader.fail("a broken \\u in a string that begins")
        value, i = int(code, 16), i + 5
        low = re.match(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})", reader.text[i:])
        if 0xD800 <= value < 0xDC00 and low is not None:
            return chr(0x10000 + ((value - 0xD800) << 10) + int(low[1], 16) - 0xDC00), i + 6
        return ("\ufffd" if 0xD800 <= value < 0xE000 else chr(value)), i
    if char in _ESCAPES:
        return _ESCAPES[char], i + 1
    if char == "x" and re.fullmatch(r"[0-9A-Fa-f]{2}", reader.text[i + 1 : i + 3]):
        reader.note("Python's \\x was read as it is meant")
        return chr(int(reader.text[i + 1 : i + 3], 16)), i + 3
    if char not in {'"', "\\", "/"}:
        reader.note("escapes that JSON does not have were taken as they stand")
        return ("" if char in {"'", "`", "\n"} else "\\") + ("" if char == "\n" else char), i + 1
    return char, i + 1


def _number(reader: _Text) -> object:
    found = _NUMBER.match(reader.text, reader.at)
    text = found[0] if found is not None else ""
    end = reader.at + len(text)
    if not any(char.isdigit() for char in text) or _WORD.match(reader.text, end):
        raise reader.fail("no number, and a text without quotes,")
    plain = text.replace("_", "").removeprefix("+")
    value = _strict(plain)
    if value is _NOTHING:
        value = float(plain)
        reader.note("numbers were written as JSON has them")
    elif plain != text:
        reader.note("numbers were written as JSON has them")
    reader.at = end
    return value


def _bare(reader: _Text) -> object:
    word = _WORD.match(reader.text, reader.at)
    if word is None or word[0] not in _WORDS:
        raise reader.fail("a value without quotes")
    reader.at = word.end()
    if word[0][0].isupper():
        reader.note("True, False and None were taken for true, false and null")
    return _WORDS[word[0]]


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else f"a {type(value).__name__}"
