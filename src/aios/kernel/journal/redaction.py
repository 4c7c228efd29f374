"""What leaves this machine of a run: all but secrets. Pure.

Three kinds are hidden: what only ever is one (tokens of links), values that the caller knows to be secret (the owner's token, the
environment of the program), and texts that look like keys of well-known services. What AIOS itself says (a role, the name of a call or of a field)
stays, be it somebody's secret: it tells nobody anything, and without it nothing could be read.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import TypeVar, cast

import msgspec
from msgspec import inspect

from aios.abi.every import AnyAnswer, AnyCall
from aios.abi.gate import Fault
from aios.abi.links import LinkInfos
from aios.kernel.journal.texts import HIDDEN
from aios.readers import convert

T = TypeVar("T")

MIN_SECRET_CHARS = 6
"""A shorter value (`1`, `en`, `true`) would hide words everywhere, and keeps no secret."""

_KEYS = (
    r"sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|aios_[A-Za-z0-9_-]{40,}|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.+?-----END [A-Z ]*PRIVATE KEY-----|[A-Za-z0-9+/=\\\s]+)"
)
BARE = "hidden"
"""Where `HIDDEN` may not stand: in names."""
_BEARER = r"(?<=Bearer )[A-Za-z0-9._~+/-]{16,}=*"


class Redaction:
    """Hides secrets in calls and answers.

    Args:
        secrets: Values that are secret wherever they stand; those under `MIN_SECRET_CHARS` characters are left.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long = [each for each in secrets if len(each) >= MIN_SECRET_CHARS]
        known = sorted({form for each in long for form in _written(each)}, key=len)
        parts = [*(re.escape(each) for each in reversed(known)), _KEYS, _BEARER]
        text = "|".join(parts)
        self._texts = re.compile(text, re.DOTALL)
        self._bytes = re.compile(text.encode(), re.DOTALL)

    def text(self, text: str) -> str:
        """A text without secrets."""
        return self._texts.sub(HIDDEN, text)

    def call(self, call: AnyCall) -> AnyCall | None:
        """A call without secrets; the same if it has none. None if one stands where nothing else may stand."""
        return self._kept(call, AnyCall)

    def answer(self, answer: AnyAnswer) -> AnyAnswer | None:
        """An answer without secrets; the same if it has none. None if one stands where nothing else may stand."""
        if isinstance(answer, LinkInfos):
            links = tuple(msgspec.structs.replace(link, token="") for link in answer.links)
            answer = LinkInfos(links)
        return self._kept(answer, AnyAnswer)

    def fault(self, fault: Fault) -> Fault:
        """A fault without secrets."""
        return convert(self._hidden(msgspec.to_builtins(fault), HIDDEN), Fault)

    def _kept(self, value: T, kind: object) -> T | None:
        """A value of a kind without secrets; None if it would be none of that kind."""
        plain = msgspec.to_builtins(value, builtin_types=(bytes,))
        for word in (HIDDEN, BARE):
            hidden = self._hidden(plain, word)
            if hidden == plain:
                return value
            with suppress(msgspec.ValidationError):
                return convert(hidden, cast("type[T]", kind))
        return None

    def _hidden(self, value: object, word: str) -> object:
        """A value of plain types, with every text in it gone over."""
        match value:
            case str():
                return value if value in _own_words() else self._texts.sub(word, value)
            case bytes():
                return self._bytes.sub(word.encode(), value)
            case list() | tuple():
                return type(value)(self._hidden(each, word) for each in value)
            case dict():
                fields = cast("dict[object, object]", value)
                return {
                    self._hidden(key, word): self._hidden(each, word)
                    for key, each in fields.items()
                }
            case _:
                return value


def _written(secret: str) -> Iterator[str]:
    """A secret as it stands in texts: as it is, in JSON, and in JSON that stands in JSON."""
    yield secret
    for is_ascii in (True, False):
        form = secret
        for _ in range(2):
            form = json.dumps(form, ensure_ascii=is_ascii)[1:-1]
            yield form


@cache
def _own_words() -> frozenset[str]:
    """The names of calls, of answers, of their fields, and what may be chosen there. Cost: 40 ms, once."""
    found, seen = set[str](), set[type]()
    left = list(inspect.multi_type_info((AnyCall, AnyAnswer, Fault)))
    while left:
        kind = left.pop()
        match kind:
            case inspect.StructType() if kind.cls not in seen:
                seen.add(kind.cls)
                found |= {str(kind.tag_field), str(kind.tag)}
                found |= {field.encode_name for field in kind.fields}
                left += (field.type for field in kind.fields)
            case inspect.EnumType():
                found |= {str(each.value) for each in kind.cls}
            case inspect.LiteralType():
                found |= {str(each) for each in kind.values}
            case inspect.UnionType():
                left += kind.types
            case inspect.CollectionType():
                left.append(kind.item_type)
            case inspect.TupleType():
                left += kind.item_types
            case inspect.DictType():
                left += (kind.key_type, kind.value_type)
            case _:
                pass
    return frozenset(found)
