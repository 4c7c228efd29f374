"""Marks on letters: where data in them came from outside. Pure."""

from collections.abc import Iterable

from aios.abi.mail import RECEIPT_TOPIC, SIGNAL_TOPIC, Letter
from aios.kernel.process import Process, Run
from aios.kernel.taint import source_of, take

WITHOUT_DATA = frozenset({RECEIPT_TOPIC, SIGNAL_TOPIC})
"""Topics on which the kernel alone writes, and nothing that comes from a process."""


def of(sender: Process, topic: str) -> str:
    """The mark of a letter on a topic; empty if it has none."""
    return "" if topic in WITHOUT_DATA else source_of(sender)


def take_all(run: Run, letters: Iterable[Letter]) -> None:
    """A call brings letters."""
    for letter in letters:
        take(run, letter.taint, f"letter {letter.id}")
