"""Special tokens in texts: where a text looks like one, and where it may be cut before one.

Regular expressions that take a vocabulary with thousands of them (Gemma's `<unused0>` to `<unused6241>`) as fast as one of ten.
"""

import re
from collections.abc import Collection
from itertools import pairwise

from msgspec import Struct

NEVER = "(?!)"


class Special(Struct, frozen=True):
    """A token that is looked for in a text before the rest of it is cut into words."""

    text: str
    is_control: bool = False
    """It is not looked for where control tokens are not wanted."""
    has_lstrip: bool = False
    """It takes the white space before it along."""


def any_of(texts: Collection[str]) -> str:
    """A regular expression for one of some texts; where one begins with another, for the shorter. Cost: O(1) at most places."""
    if not texts:
        return NEVER
    low, high = min(texts), max(texts)
    n_common = next((at for at in range(len(low)) if low[at] != high[at]), len(low))
    prefix, rests = low[:n_common], {text[n_common:] for text in texts}
    if "" in rests:
        return re.escape(prefix)
    by_first: dict[str, list[str]] = {}
    for rest in sorted(rests):
        by_first.setdefault(rest[0], []).append(rest)
    branches = [any_of(group) for group in by_first.values()]
    return f"{re.escape(prefix)}(?:{'|'.join(branches)})"


def starts_of(texts: Collection[str]) -> re.Pattern[str]:
    """Matches the first character of every occurrence of a text that has two or more, also of those that overlap."""
    by_first: dict[str, set[str]] = {}
    for text in texts:
        if len(text) > 1:
            by_first.setdefault(text[0], set()).add(text[1:])
    branches = [f"{re.escape(first)}(?={any_of(rests)})" for first, rests in by_first.items()]
    return re.compile("|".join(branches) or NEVER)


def cuts_of(tokens: Collection[Special]) -> re.Pattern[str]:
    """Matches where a text may be cut, and its parts tokenised one by one, without another token coming out of it.

    That is before a special token that is read as such wherever it stands: no other one can overlap it. llama.cpp cuts the
    text there, too, whatever the vocabulary, but in a time that grows as the square of the special tokens in the text.
    """
    texts = {token.text for token in tokens if token.text}
    heads = {text[:end] for text in texts for end in range(1, len(text))}
    tails = {text[start:] for text in texts for start in range(1, len(text))}
    lengths = {len(text) for text in texts}
    inner = {
        text[start : start + length]
        for text in texts
        for length in lengths
        if length < len(text)
        for start in range(len(text) - length + 1)
    }
    stripping = {token.text for token in tokens if token.has_lstrip}
    safe = [
        text
        for text in texts - stripping - inner
        if text == text.strip()  # or the one before it might take it along
        and not any(text[:at] in tails or text[at:] in heads for at in range(1, len(text)))
    ]
    return re.compile(any_of(safe))


def cut(text: str, cuts: re.Pattern[str]) -> list[str]:
    """The text in parts, none of them empty, each but the first beginning with what `cuts` matches."""
    places = [0, *(found.start() for found in cuts.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(places) if start < end]
