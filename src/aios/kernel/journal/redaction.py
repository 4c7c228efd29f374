"""What leaves this machine of a run: all but secrets. Pure.

Three kinds are hidden: what only ever is one (tokens of links), values that the caller knows to be secret (the owner's token, the
environment of the program), and texts that look like keys of well-known services.
"""

import re
from collections.abc import Iterable
from typing import cast

import msgspec

from aios.abi.every import AnyAnswer, AnyCall
from aios.abi.gate import Fault
from aios.abi.links import LinkInfos
from aios.kernel.journal.texts import HIDDEN

MIN_SECRET_CHARS = 6
"""A shorter value (`1`, `en`, `true`) would hide words everywhere, and keeps no secret."""

_KEYS = (
    r"sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|aios_[A-Za-z0-9_-]{40,}|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----"
)
_BEARER = r"(?<=Bearer )[A-Za-z0-9._~+/-]{16,}=*"


class Redaction:
    """Hides secrets in calls and answers.

    Args:
        secrets: Values that are secret wherever they stand; those under `MIN_SECRET_CHARS` characters are left.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({each for each in secrets if len(each) >= MIN_SECRET_CHARS}, key=len)
        parts = [*(re.escape(each) for each in reversed(known)), _KEYS, _BEARER]
        text = "|".join(parts)
        self._texts = re.compile(text, re.DOTALL)
        self._bytes = re.compile(text.encode(), re.DOTALL)

    def text(self, text: str) -> str:
        """A text without secrets."""
        return self._texts.sub(HIDDEN, text)

    def call(self, call: AnyCall) -> AnyCall:
        """A call without secrets; the same if it has none."""
        plain = msgspec.to_builtins(call, builtin_types=(bytes,))
        hidden = self._hidden(plain)
        return call if hidden == plain else msgspec.convert(hidden, AnyCall)

    def answer(self, answer: AnyAnswer) -> AnyAnswer:
        """An answer without secrets; the same if it has none."""
        if isinstance(answer, LinkInfos):
            links = tuple(msgspec.structs.replace(link, token="") for link in answer.links)
            answer = LinkInfos(links)
        plain = msgspec.to_builtins(answer, builtin_types=(bytes,))
        hidden = self._hidden(plain)
        return answer if hidden == plain else msgspec.convert(hidden, AnyAnswer)

    def fault(self, fault: Fault) -> Fault:
        """A fault without secrets."""
        return msgspec.convert(self._hidden(msgspec.to_builtins(fault)), Fault)

    def _hidden(self, value: object) -> object:
        """A value of plain types, with every text in it gone over."""
        match value:
            case str():
                return self._texts.sub(HIDDEN, value)
            case bytes():
                return self._bytes.sub(HIDDEN.encode(), value)
            case list() | tuple():
                return [self._hidden(each) for each in value]
            case dict():
                fields = cast("dict[str, object]", value)
                return {key: self._hidden(each) for key, each in fields.items()}
            case _:
                return value
