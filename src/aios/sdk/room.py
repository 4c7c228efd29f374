"""What a client offers of one kind (`client.files`, `client.mail`), imported when a program first asks for it.

A small program uses one or two of a dozen; all of them together take longer to import than the rest of the client.
"""

from importlib import import_module
from typing import Generic, Protocol, TypeVar

R = TypeVar("R")


class _HasGate(Protocol):
    @property
    def gate(self) -> object: ...


class Room(Generic[R]):
    """An attribute of a client: made of the client's gate by the class that `place` names, `module:Class`, and then kept."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: _HasGate, owner: type) -> R:
        module, _, name = self._place.partition(":")
        room: R = getattr(import_module(module), name)(client.gate)
        kept: R = client.__dict__.setdefault(self._name, room)  # found there from now on
        return kept
