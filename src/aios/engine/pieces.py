"""The scripted engine's tokenizer: words, marks and blanks; no vocabulary file, and nothing is lost.

A token ("piece") is up to eight letters or digits with at most one blank before them, or one mark with at most one blank
before it, or one blank. Joined again, the pieces are the text. A piece's id is made from the CRC-32 of its UTF-8 bytes:
the same on every machine and in every run. Two pieces may share an id; nothing here turns ids back into text.
"""

import re
from collections.abc import Iterator
from zlib import crc32

MAX_PIECE_CHARS = 9

_PIECE = re.compile(r" ?\w{1,8}| ?[^\w\s]|\s")


def split(text: str) -> list[str]:
    """The pieces of a text, in order; joined they are the text."""
    return _PIECE.findall(text)


def iter_pieces(text: str) -> Iterator[str]:
    """The same one by one, for texts of any length."""
    return (match.group() for match in _PIECE.finditer(text))


def count(text: str) -> int:
    """How many pieces a text has."""
    return len(_PIECE.findall(text))


def at_least(text: str) -> int:
    """A lower bound of `count`, without looking at the text."""
    return -(-len(text) // MAX_PIECE_CHARS)


def piece_id(piece: str) -> int:
    """The id of a piece, below 2**29: as many digits as clients expect of a token."""
    return crc32(piece.encode("utf-8", "surrogatepass")) >> 3
