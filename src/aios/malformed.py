"""What is wrong with a value that does not fit its type, in words for people. Pure.

msgspec quotes the regular expression that a text should match. Whoever typed the text is told what it says instead.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

END = r"(?!\n)$"
WORDS: Mapping[str, str] = MappingProxyType(
    {
        r"^[A-Za-z0-9][A-Za-z0-9._/-]*": "letters, digits and . _ / -, the first a letter or digit",
        r"^([A-Za-z0-9_][A-Za-z0-9._/-]*)?": "letters, digits and . _ / -, the first a letter, a digit or _, or nothing",
        r"^[A-Za-z0-9][A-Za-z0-9._-]*": "letters, digits and . _ -, the first a letter or digit",
        r"^[A-Za-z0-9_-]+": "letters, digits and _ -",
        r"^[A-Za-z_][A-Za-z0-9_]*": "letters, digits and _, the first no digit",
        r"^[A-Z][A-Z0-9_]{0,63}": "at most 64 of A-Z, 0-9 and _, the first a letter",
        r"^[0-9a-f]{16}": "16 hexadecimal digits",
        r"^[0-9a-f]{32}": "32 hexadecimal digits",
        r"^[0-9]{1,9}": "1 to 9 digits",
        r"^((Group|Kind|Program)::[^\n]+)?": "Group::OWNER, Kind::KIND, Program::/FOLDER, or nothing",
        r"^(https?://\S+)?": "an address http://... or https://..., or nothing",
        r"^(https://|data:image/)": "an address https://... or data:image/...",
    }
)
"""By patterns without their `END`."""
_QUOTED = re.compile(r"""matching regex (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_CHOICES = re.compile(r"\^\((?P<words>[A-Za-z0-9_|-]+)\)")


def told(error: Exception) -> str:
    """What msgspec says, with words in the place of a pattern."""
    return _QUOTED.sub(lambda found: f"that is {words_of(_unquoted(found['text']))}", str(error))


def words_of(pattern: str) -> str:
    """What texts a pattern of ours matches."""
    bare = pattern.removesuffix(END)
    choices = _CHOICES.fullmatch(bare)
    if choices is not None:
        return f"one of {', '.join(choices['words'].split('|'))}"
    return WORDS.get(bare, f"matched by {pattern}")


def _unquoted(text: str) -> str:
    """What Python quoted; `ast` would do it too, and takes 5 ms to import in a child."""
    return text[1:-1].encode("ascii", "backslashreplace").decode("unicode_escape")
