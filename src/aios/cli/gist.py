"""A call and its answer on one line each, for people: of a conversation its last message, of a tool its arguments, of the rest what is set."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import msgspec

from aios.abi.journal import Recorded
from aios.abi.types import JsonObject
from aios.abi.wire import answer_from_json, call_from_json
from aios.cli.output import counted, printable
from aios.errors import InvalidCall
from aios.kernel.journal.difference import essence

LINE_CHARS = 200
"""Of a call or an answer on its line; `--json` shows all."""
LEAD_CHARS = 60
"""Shown of what two texts have in common, before the place where they part."""
TAGS = frozenset({"call", "answer", "type"})

Fields = dict[str, object]


def lines_of(record: Recorded) -> list[str]:
    """What was asked (`>`) and answered (`<`), cut where it gets long."""
    asked, told = _fields(record)
    return _signed(_cut(_call_line(asked)), _cut(_answer_line(told)))


def parted_lines(record: Recorded, beside: Recorded, names: Collection[str]) -> list[str]:
    """The same, of a record that is not as another one, of processes of these names: where they part, without what is another in each run."""
    (asked, told), (other_asked, other_told) = _essences(record, names), _essences(beside, names)
    return _signed(
        _cut(*_beside(_call_line, asked, other_asked)),
        _cut(*_beside(_answer_line, told, other_told)),
    )


def _signed(asked: str, told: str) -> list[str]:
    return [f"{sign} {line}" for sign, line in ((">", asked), ("<", told)) if line]


def _fields(record: Recorded) -> tuple[Fields, Fields]:
    asked = _without_empty(_read(record.intent, call_from_json))
    told = _without_empty(_read(record.answer, answer_from_json))
    assert isinstance(asked, dict), "a call is an object"
    assert isinstance(told, dict), "an answer is an object"
    return {k: v for k, v in asked.items() if v is not False}, told


def _essences(record: Recorded, names: Collection[str]) -> tuple[Fields, Fields]:
    asked, told = (essence(fields, names) for fields in _fields(record))
    assert isinstance(asked, dict), "a call is an object"
    assert isinstance(told, dict), "an answer is an object"
    return asked, told


def _call_line(asked: Fields, beside: Fields | None = None) -> str:
    """A call; of one with messages that which is another beside it, else the last."""
    messages = asked.get("messages")
    if isinstance(messages, list) and messages:
        others = beside.get("messages") if beside is not None else messages
        if messages != others or beside is None or asked == beside:
            n = len(messages)
            number = _parting(messages, others if isinstance(others, list) else [])
            where = f"(message {number} of {n}) " if number < n else f"({n} messages) "
            return f"{where if n > 1 else ''}{_message(messages[number - 1])}"
    if set(asked) == {"name", "arguments"}:
        arguments = asked["arguments"]
        return f"{asked['name']} {arguments if isinstance(arguments, str) else _json(arguments)}"
    return _json(asked)


def _answer_line(told: Fields, beside: Fields | None = None) -> str:
    """An answer; of a model or a tool what it says, unless it is what it says beside it."""
    if "message" in told and (beside is None or beside.get("message") != told["message"]):
        finish = told.get("finish")
        cut = f" ({finish})" if finish not in {"stop", "tool_calls", None} else ""
        return _message(told["message"]) + cut if isinstance(told["message"], dict) else _json(told)
    text = told.get("text")
    if text and (beside is None or beside.get("text") != text):
        return _one_line(text) if isinstance(text, str) else _json(text)
    return _json(told)


def _beside(
    line: Callable[[Fields, Fields | None], str], fields: Fields, other: Fields
) -> tuple[str, str]:
    return line(fields, other), line(other, fields)


def _parting(messages: Sequence[object], others: Sequence[object]) -> int:
    """The number of the first message that is another; the last if none is."""
    for number, (one, other) in enumerate(zip(messages, others, strict=False), 1):
        if one != other:
            return number
    return min(len(others) + 1, len(messages)) if len(others) != len(messages) else len(messages)


def _message(message: object) -> str:
    """Who says what, or calls which tools."""
    if not isinstance(message, dict):
        return _json(message)
    content = message.get("content", "")
    said = _one_line(content) if isinstance(content, str) else _json(content)
    calls = message.get("tool_calls")
    asked = ", ".join(
        _call_line({"name": call.get("name"), "arguments": call.get("arguments")})
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict)
    )
    wants = f"calls {asked}" if asked else ""
    return f"{message.get('role')}: {' '.join(filter(None, (said, wants)))}"


def _read(value: JsonObject, read: Callable[[bytes], object]) -> object:
    """A call or an answer with its bytes as people read them; JSON has them in base64."""
    told: object = value
    with suppress(InvalidCall):  # of another version of AIOS, or a fault: there are no bytes in it
        typed = read(msgspec.json.encode(value))
        told = _as_text(msgspec.to_builtins(typed, builtin_types=(bytes,)))
    assert isinstance(told, dict), "a call is an object, and so is an answer"
    return {k: v for k, v in told.items() if k not in TAGS}


def _as_text(value: object) -> object:
    match value:
        case bytes():
            with suppress(UnicodeDecodeError):
                return value.decode()
            return f"({counted(len(value), 'byte')})"
        case dict():
            return {key: _as_text(each) for key, each in value.items()}
        case list() | tuple():
            return [_as_text(each) for each in value]
    return value


def _without_empty(value: object) -> object:
    """A value without fields that say nothing."""
    match value:
        case dict():
            found = {key: _without_empty(each) for key, each in value.items()}
            return {key: each for key, each in found.items() if each not in (None, "", [], {})}
        case list():
            return [_without_empty(each) for each in value]
    return value


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode() if value else ""


def _one_line(text: str) -> str:
    return "\\n".join(text.splitlines())


def _cut(text: str, other: str | None = None) -> str:
    """A line cut where it gets long: its beginning, or the place where it is not as the other one."""
    text, other = printable(text), printable(text if other is None else other)
    parted = (n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b)
    n_common = next(parted, 0)
    start = n_common - LEAD_CHARS if n_common > LINE_CHARS - LEAD_CHARS else 0
    end = start + LINE_CHARS
    return f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"
