"""Tool calls in the text of a model, found as the text streams by.

Ordinary text passes without delay. What may be a call is held back until it is whole; what then turns out to be none
comes out as the text that it is, never as an error.
"""

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from aios.abi.types import ToolCall, ToolSpec
from aios.engine.base import ChatPrompt
from aios.engine.llama.template import ToolMode
from aios.engine.llama.toolprompt import CALL_CLOSE, CALL_OPEN
from aios.readers import Reader

MISTRAL_OPEN: Final = "[TOOL_CALLS]"
PYTHON_TAG: Final = "<|python_tag|>"

OPENING: Final = {
    ToolMode.FALLBACK: CALL_OPEN,
    ToolMode.HERMES: CALL_OPEN,
    ToolMode.LLAMA3: PYTHON_TAG,
    ToolMode.MISTRAL: MISTRAL_OPEN,
}
"""What stands before a call. Where it is a control token, its text must be fed to the parser none the less."""


class _Place(Enum):
    """Where in the output the parser is."""

    START = "start"  # only blanks so far: a tag or bare JSON may begin
    TEXT = "text"  # ordinary text: a tag may begin
    OPEN = "open"  # after a tag: JSON must begin
    VALUE = "value"  # inside JSON
    CLOSE = "close"  # after a call: its closing tag may come
    AFTER = "after"  # after a whole call: blanks and separators are dropped


class _Scan(Struct, frozen=True):
    """How far a JSON value was read: it begins at `start`, and `end` is where reading goes on."""

    start: int = 0
    end: int = 0
    depth: int = 0
    in_string: bool = False
    is_escaped: bool = False


@dataclass
class ToolParser:
    """Finds the tool calls in streamed text.

    A call counts if it names one of `tools` and its arguments are a JSON object; whether they fit the tool's schema is
    for whoever runs the tool to say. `copy.copy` of a parser is an independent one.

    Args:
        tools: The tools that may be called.
        mode: The form that the model was asked for.
        seed: A call's id is made from it and the number of the call in the conversation, so that runs repeat.
        n_before: Calls that the conversation has already, so that ids do not come twice.
    """

    tools: tuple[ToolSpec, ...]
    mode: ToolMode
    seed: int = 0
    n_before: int = 0
    _n_calls: int = field(default=0, init=False)
    _place: _Place = field(default=_Place.START, init=False)
    _held: str = field(default="", init=False)
    """What is not handed out yet, from `_tag` on if one was read."""
    _tag: int = field(default=0, init=False)
    """The length of the opening tag at the beginning of `_held`, and of the blanks before it."""
    _scan: _Scan = field(default=_Scan(), init=False)

    @classmethod
    def for_prompt(cls, prompt: ChatPrompt, mode: ToolMode, *, seed: int) -> "ToolParser":
        """The parser for the answer to a prompt."""
        n_before = sum(len(message.tool_calls) for message in prompt.messages)
        return cls(prompt.tools, mode, seed, n_before)

    def feed(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """Take the next piece of text.

        Returns: The text that may be shown now, and the calls that are now whole.
        """
        if self.mode is ToolMode.NONE:
            return text, ()
        self._held += text
        shown: list[str] = []
        calls: list[ToolCall] = []
        while self._held and self._step(shown, calls):
            pass
        return "".join(shown), tuple(calls)

    def flush(self) -> tuple[str, tuple[ToolCall, ...]]:
        """What is held back when the generation ends: a call that was cut off comes out as text."""
        held, place = self._held, self._place
        self._held, self._place = "", _Place.TEXT
        return ("" if place in (_Place.CLOSE, _Place.AFTER) else held), ()

    def _step(self, shown: list[str], calls: list[ToolCall]) -> bool:
        """Do what can be done with the held text in this place; False when more text is needed."""
        match self._place:
            case _Place.START:
                return self._begin()
            case _Place.TEXT:
                return self._pass_text(shown)
            case _Place.OPEN:
                return self._open(shown)
            case _Place.VALUE:
                return self._read_value(shown, calls)
            case _Place.CLOSE:
                return self._close()
            case _Place.AFTER:
                return self._go_on()

    def _begin(self) -> bool:
        tag, text = OPENING[self.mode], self._held.lstrip()
        n_blanks = len(self._held) - len(text)
        if text.startswith("{"):
            self._expect_json(self._held, tag_length=0)
        elif text.startswith(tag):
            self._expect_json(self._held, tag_length=n_blanks + len(tag))
        elif tag.startswith(text):
            return False
        else:
            self._place = _Place.TEXT
        return True

    def _pass_text(self, shown: list[str]) -> bool:
        tag = OPENING[self.mode]
        at = self._held.find(tag)
        if at >= 0:
            shown.append(self._held[:at])
            self._expect_json(self._held[at:], tag_length=len(tag))
            return True
        n_kept = next(n for n in range(len(tag) - 1, -1, -1) if self._held.endswith(tag[:n]))
        n_shown = len(self._held) - n_kept
        shown.append(self._held[:n_shown])
        self._held = self._held[n_shown:]
        return False

    def _expect_json(self, held: str, *, tag_length: int) -> None:
        self._held, self._tag, self._place = held, tag_length, _Place.OPEN

    def _open(self, shown: list[str]) -> bool:
        value = self._held[self._tag :].lstrip()
        if not value:
            return False
        if value[0] in "{[":
            start = len(self._held) - len(value)
            self._scan = _Scan(start, start)
            self._place = _Place.VALUE
        else:
            self._give_up(shown, self._tag)
        return True

    def _read_value(self, shown: list[str], calls: list[ToolCall]) -> bool:
        scan = self._scan = _scan_on(self._held, self._scan)
        if scan.depth:
            if self._tag or _may_be_call(self._held[scan.start :]):
                return False
            self._give_up(shown, self._n_refused)
            return True
        found = self._recognise(self._held[scan.start : scan.end])
        if not found:
            self._give_up(shown, self._n_refused)
            return True
        calls.extend(found)
        self._held = self._held[scan.end :]
        self._place = _Place.CLOSE
        return True

    @property
    def _n_refused(self) -> int:
        """How much of a value that is no call is text: behind a tag all of it, else its brace, for how much has come by now must make no difference."""
        return self._scan.end if self._tag else self._scan.start + 1

    def _give_up(self, shown: list[str], n_chars: int) -> None:
        """It is no call: show so many characters of what was held and go on behind them."""
        shown.append(self._held[:n_chars])
        self._held = self._held[n_chars:]
        self._place = _Place.TEXT

    def _close(self) -> bool:
        text = self._held.lstrip()
        if text != CALL_CLOSE and CALL_CLOSE.startswith(text):
            return False
        self._held = text.removeprefix(CALL_CLOSE)
        self._place = _Place.AFTER
        return True

    def _go_on(self) -> bool:
        self._held = self._held.lstrip(" \n\r\t;,")
        self._place = _Place.START if self._held else _Place.AFTER
        return bool(self._held)

    def _recognise(self, text: str) -> list[ToolCall]:
        """The calls in a JSON value; none unless every part of it is one."""
        names = {tool.name for tool in self.tools}
        written = _read_calls(text)
        if not all(name in names for name, _ in written):
            return []
        calls = [ToolCall(self._id(i), *call) for i, call in enumerate(written, self._n_calls)]
        self._n_calls += len(calls)
        return calls

    def _id(self, n: int) -> str:
        number = f"{self.seed} {self.n_before + n}".encode()
        return f"call_{blake2b(number, digest_size=8).hexdigest()}"


def _scan_on(text: str, scan: _Scan) -> _Scan:
    """Read on to the end of the JSON value (then `depth` is 0) or of the text. Each character is read once."""
    depth, in_string, is_escaped = scan.depth, scan.in_string, scan.is_escaped
    for end in range(scan.end, len(text)):
        char = text[end]
        if in_string:
            in_string = is_escaped or char != '"'
            is_escaped = char == "\\" and not is_escaped
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return _Scan(scan.start, end + 1)
    return _Scan(scan.start, len(text), depth, in_string, is_escaped)


_FIRST_KEY: Final = re.compile(r'\{\s*"([^"\\]{0,40})')
_CALL_KEYS: Final = ("name", "type", "id", "function", "arguments", "parameters")


def _may_be_call(text: str) -> bool:
    """Whether bare JSON may still become a call, by its first key as far as it is there."""
    found = _FIRST_KEY.match(text)
    if found is None:
        return text[1:].strip() == ""
    key, is_whole = found[1], text[found.end() : found.end() + 1] == '"'
    return key in _CALL_KEYS if is_whole else any(name.startswith(key) for name in _CALL_KEYS)


class _Written(msgspec.Struct):
    """A call as models write it, in any of the usual forms."""

    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()
    function: "_Written | str | None" = None


_written: Reader[_Written | list[_Written]] = Reader(
    msgspec.json.Decoder, _Written | list[_Written]
)


def _read_calls(text: str) -> list[tuple[str, str]]:
    """Names and arguments (JSON of an object) of the calls in a JSON value; none if one of them is no call."""
    try:
        value = _written.decode(_strict_json(text))
        return [_name_and_arguments(row) for row in (value if isinstance(value, list) else [value])]
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return []


def _strict_json(text: str) -> str:
    """The text if it is JSON; else mended, if all that is wrong are raw control characters in its strings."""
    try:
        msgspec.json.decode(text)
    except ValueError:
        return json.dumps(json.loads(text, strict=False))
    return text


def _name_and_arguments(row: _Written) -> tuple[str, str]:
    if isinstance(row.function, _Written):
        return _name_and_arguments(row.function)
    arguments = bytes(row.arguments) or bytes(row.parameters) or b"{}"
    value = msgspec.json.decode(arguments)
    if isinstance(value, str):  # some models write the object as a text
        arguments, value = value.encode(), msgspec.json.decode(value)
    if value is None:
        arguments, value = b"{}", {}
    if not isinstance(value, dict):
        raise ValueError("the arguments are no object")  # noqa: TRY004 - one kind of error for all that is no call
    return row.function or row.name, arguments.decode()
