"""A mailbox: bounded, urgent letters first, else in order of arrival, each letter taken once. Pure."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from aios.abi.mail import Letter

LETTER_OVERHEAD_BYTES = 200
URGENT_ROOM = 16
"""Urgent letters that a full mailbox takes beside what it holds."""


class Match(Struct, frozen=True):
    """Which letters are wanted; None wants any."""

    sender: int | None = None
    topic: str | None = None
    reply_to: int | None = None
    is_urgent: bool = False
    """Only those that are."""

    def fits(self, letter: Letter) -> bool:
        """Whether a letter has all that is asked for."""
        return (
            self.sender in (None, letter.sender)
            and self.topic in (None, letter.topic)
            and self.reply_to in (None, letter.reply_to)
            and (letter.is_urgent or not self.is_urgent)
        )


@dataclass
class Box:
    """The letters of one process that were not taken yet.

    Args:
        max_letters: No more than so many wait.
        max_bytes: Nor more than so many bytes, but one letter always fits an empty box.
    """

    max_letters: int
    max_bytes: int
    size_bytes: int = 0
    n_urgent: int = 0
    _letters: "OrderedDict[int, Letter]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[Letter]:
        return iter(self._letters.values())

    def has_room(self, letter: Letter) -> bool:
        """Whether the letter may be put in."""
        if not self._letters or (letter.is_urgent and self.n_urgent < URGENT_ROOM):
            return True
        size_bytes = self.size_bytes + letter_bytes(letter)
        return len(self._letters) < self.max_letters and size_bytes <= self.max_bytes

    def put(self, letter: Letter) -> None:
        """Add a letter at the end. Whether there is room is the caller's question: a receipt is never refused."""
        assert letter.id not in self._letters, "a letter arrives once"
        self._letters[letter.id] = letter
        self.size_bytes += letter_bytes(letter)
        self.n_urgent += letter.is_urgent

    def take(self, match: Match, limit: int) -> tuple[Letter, ...]:
        """Remove and return the oldest letters that match, urgent ones first. Cost: linear in the letters looked at."""
        found: list[Letter] = []
        for letter in self._by_urgency():
            if match.fits(letter):
                found.append(letter)
                if len(found) == limit:
                    break
        for letter in found:
            self.drop(letter)
        return tuple(found)

    def put_back(self, letters: Sequence[Letter]) -> None:
        """Letters that were taken were not, after all."""
        for letter in letters:
            self.put(letter)
        self._letters = OrderedDict(sorted(self._letters.items()))

    def drop(self, letter: Letter) -> None:
        """Remove a letter, if it is still there."""
        if self._letters.pop(letter.id, None) is not None:
            self.size_bytes -= letter_bytes(letter)
            self.n_urgent -= letter.is_urgent

    def _by_urgency(self) -> Iterator[Letter]:
        if not self.n_urgent:
            return iter(self)
        return iter(sorted(self, key=lambda letter: (not letter.is_urgent, letter.id)))

    def check_invariants(self) -> None:
        """Raise AssertionError if the box counts wrong or lost its order."""
        assert self.size_bytes == sum(letter_bytes(letter) for letter in self)
        assert self.n_urgent == sum(letter.is_urgent for letter in self)
        ids = list(self._letters)
        assert ids == sorted(ids), "letters are not in order of arrival"


def letter_bytes(letter: Letter) -> int:
    """What a letter counts for."""
    return LETTER_OVERHEAD_BYTES + len(letter.body.encode("utf-8", "surrogatepass"))
