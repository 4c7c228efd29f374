"""A text that matches a simple regular expression: what the scripted engine writes under a regex. Pure.

Understood: literals, `.`, escapes, classes with ranges, groups, alternation (the first branch is taken), the quantifiers
`* + ? {n} {n,} {n,m}` (the fewest repetitions are taken), and anchors at the ends. Everything else is refused, never
guessed.
"""

import string

from aios.errors import InvalidCall, Unsupported

MAX_CHARS = 4096
MAX_DEPTH = 50

_CLASSES = {
    "d": string.digits,
    "w": string.ascii_letters + string.digits + "_",
    "s": string.whitespace,
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_CANDIDATES = (
    string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation + " "
)


def text_of_pattern(pattern: str) -> str:
    """The text that takes the first branch and the fewest repetitions everywhere.

    Raises:
        InvalidCall: The pattern is malformed.
        Unsupported: It uses what this little reader does not know, or its text is over `MAX_CHARS`.
    """
    reader = _Reader(pattern)
    text = reader.alternatives(depth=0)
    if not reader.at_end:
        raise InvalidCall(f"unbalanced `)` at {reader.at} of the pattern")
    return text


class _Reader:
    """Reads a pattern once, from left to right, and writes as it goes."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0

    @property
    def at_end(self) -> bool:
        return self.at >= len(self._pattern)

    def alternatives(self, *, depth: int) -> str:
        """Branches up to the end or to the `)` of the group; all are read, the first is what counts."""
        if depth > MAX_DEPTH:
            raise Unsupported(f"the pattern nests deeper than {MAX_DEPTH}")
        first = self._branch(depth)
        while self._take("|"):
            self._branch(depth)
        return first

    def _branch(self, depth: int) -> str:
        parts: list[str] = []
        n_chars = 0
        if depth == 0:
            self._take("^")
        while not self.at_end and self._peek() not in "|)":
            if (
                self._peek() == "$"
                and depth == 0
                and self._pattern[self.at + 1 : self.at + 2] in {"", "|"}
            ):
                self.at += 1
                break
            part = self._repeated(self._atom(depth))
            n_chars += len(part)
            if n_chars > MAX_CHARS:
                raise Unsupported(f"the pattern asks for more than {MAX_CHARS} characters")
            parts.append(part)
        return "".join(parts)

    def _atom(self, depth: int) -> str:
        char = self._next()
        if char == "(":
            return self._group(depth)
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()[0]
        if char == ".":
            return "x"
        if char in "^$":
            raise Unsupported(f"an anchor inside the pattern, at {self.at - 1}")
        if char in "*+?{":
            raise InvalidCall(f"nothing to repeat at {self.at - 1} of the pattern")
        return char

    def _group(self, depth: int) -> str:
        if self._take("?") and not self._take(":"):
            raise Unsupported(
                f"a group that is not plain or `(?:`, at {self.at - 2} of the pattern"
            )
        text = self.alternatives(depth=depth + 1)
        if not self._take(")"):
            raise InvalidCall("the pattern has an unclosed `(`")
        return text

    def _escape(self) -> str:
        """The characters that an escape stands for, the plainest first."""
        if self.at_end:
            raise InvalidCall("the pattern ends in a backslash")
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char.lower() in _CLASSES:
            return _others(_CLASSES[char.lower()])
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            raise Unsupported(f"the escape `\\{char}` in the pattern")
        return char

    def _class(self) -> str:
        is_negated = self._take("^")
        members = [self._range()]  # a `]` that comes first is a member
        while not self._take("]"):
            members.append(self._range())
        chars = "".join(members)
        if is_negated:
            chars = _others(chars)
        if not chars:
            raise Unsupported("a class without a printable member in the pattern")
        return chars[0]

    def _range(self) -> str:
        low = self._member()
        if self._peek() != "-" or self._pattern[self.at + 1 : self.at + 2] in {"]", ""}:
            return low
        self.at += 1
        high = self._member()
        if len(low) != 1 or len(high) != 1 or high < low:
            raise InvalidCall(f"a bad range before {self.at} of the pattern")
        # A range may span a million characters: only those that `_others` looks at matter beyond the first.
        return low + "".join(char for char in _CANDIDATES if low < char <= high)

    def _member(self) -> str:
        if self.at_end:
            raise InvalidCall("the pattern has an unclosed `[`")
        char = self._next()
        if char == "[" or (char in "&~" and self._peek() == char):
            raise Unsupported("a class inside a class of the pattern")
        return self._escape() if char == "\\" else char

    def _repeated(self, atom: str) -> str:
        n = self._quantifier()
        if n is None:
            return atom
        if self._peek() in {"*", "+", "?", "{"} and self._quantifier() is not None:
            raise Unsupported(f"a quantifier of a quantifier before {self.at} of the pattern")
        if n * len(atom) > MAX_CHARS:
            raise Unsupported(f"the pattern asks for more than {MAX_CHARS} characters")
        return atom * n

    def _quantifier(self) -> int | None:
        """The fewest repetitions that the quantifier here allows; None if there is none."""
        char = self._peek()
        if char not in {"*", "+", "?", "{"}:
            return None
        self.at += 1
        n = self._counted() if char == "{" else int(char == "+")
        self._take("?")  # lazy or greedy: the fewest are taken anyway
        return n

    def _counted(self) -> int:
        end = self._pattern.find("}", self.at)
        low, _, high = self._pattern[self.at : end].partition(",") if end >= 0 else ("", "", "")
        if not (low.isdecimal() and (not high or high.isdecimal())) or len(low + high) > 12:
            raise InvalidCall(f"a bad `{{}}` quantifier at {self.at - 1} of the pattern")
        if high and int(high) < int(low):
            raise InvalidCall(f"an empty `{{}}` quantifier at {self.at - 1} of the pattern")
        self.at = end + 1
        return int(low)

    def _peek(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _next(self) -> str:
        self.at += 1
        return self._pattern[self.at - 1]

    def _take(self, char: str) -> bool:
        if self._peek() != char:
            return False
        self.at += 1
        return True


def _others(chars: str) -> str:
    return "".join(char for char in _CANDIDATES if char not in chars)
