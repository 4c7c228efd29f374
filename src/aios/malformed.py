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
        r"^[^\x00-\x1f\x7f-\x9f]{0,256}": "at most 256 characters, none of which controls a terminal",
        r"\S": "not only blanks",
    }
)
"""By patterns without their `END`."""
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "str": "text",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "bytes": "bytes",
        "array": "a list",
        "object": "an object",
        "null": "nothing",
    }
)
"""By msgspec's names of types."""
NOT_RENAMED: Mapping[str, str] = MappingProxyType({})
_QUOTED = re.compile(r"""matching regex (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`$")
_KIND = re.compile(rf"`((?:{'|'.join(KINDS)})(?: \| (?:{'|'.join(KINDS)}))*)`")
_LENGTH = re.compile(r" of length (?P<sign>[<>]=) (?P<n>\d+)")
_ROOT = re.compile(r"[^.\[]+")
_CHOICES = re.compile(r"\^\((?P<words>[A-Za-z0-9_|-]+)\)")


def told(error: Exception) -> str:
    """What msgspec says, with words in the place of a pattern."""
    return _QUOTED.sub(lambda found: f"that is {words_of(_unquoted(found['text']))}", str(error))


def named(error: Exception, names: Mapping[str, str] = NOT_RENAMED) -> str:
    """What msgspec says, for who wrote an argument or a key by name: that comes first, as in "`tags[0]`: expected text of at most 64 characters".

    `names` are those of fields that the writer knows by another name.
    """
    text = told(error)
    place = _PLACE.search(text)
    if place is not None:
        text = text[: place.start()]
    text = text.removeprefix("Object contains ").removeprefix("Object ")
    if text.startswith(("Expected ", "Invalid ")):
        text = text[0].lower() + text[1:]
        text = _LENGTH.sub(_length, text)
        text = _KIND.sub(_kinds, text)
    if place is None or not place["path"]:
        return text
    path = _ROOT.sub(lambda root: names.get(root[0], root[0]), place["path"], count=1)
    return f"{'a key of ' if place['key'] else ''}`{path}`: {text}"


def _length(found: re.Match[str]) -> str:
    bound = "at least" if found["sign"] == ">=" else "at most"
    unit = "character" if "`str" in found.string[: found.start()] else "item"
    return f" of {bound} {found['n']} {unit}{'' if found['n'] == '1' else 's'}"


def _kinds(found: re.Match[str]) -> str:
    return " or ".join(KINDS[kind] for kind in found[1].split(" | "))


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
