"""Reads bytes and values as types, from any thread. All reading by type in the project goes through this file.

msgspec (0.22) keeps what it finds out about a class with the class, and shows it to other threads half made: two that read as a
class for the first time at once crash the interpreter. Here one thread at a time looks at a class; the reading itself is free.
"""

from collections.abc import Callable
from functools import cached_property
from threading import RLock
from typing import Generic, Protocol, TypeVar, cast, overload

import msgspec

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Hook = Callable[[type, object], object]
"""Makes a value of a type that msgspec does not know from the plain one that was read."""


class _Decoder(Protocol[T_co]):
    """`msgspec.json.Decoder` and `msgspec.msgpack.Decoder`."""

    def decode(self, data: bytes | bytearray | memoryview | str, /) -> T_co:
        """Read all of the data."""


_Make = Callable[..., object]

_looking = RLock()


class Reader(Generic[T]):
    """Reads one form of bytes. Its decoder is made at the first use: some take milliseconds, and a program needs few of them."""

    @overload
    def __init__(self, make: _Make, form: type[T], hook: Hook | None = None) -> None: ...
    @overload
    def __init__(self, make: _Make, form: object, hook: Hook | None = None) -> None: ...
    def __init__(self, make: _Make, form: object, hook: Hook | None = None) -> None:
        """A reader of `form` by `make`, which is `msgspec.json.Decoder` or `msgspec.msgpack.Decoder`."""
        self._make = make
        self._form = form
        self._hook = hook

    @cached_property
    def decode(self) -> Callable[[bytes | str], T]:
        """Reads all of the bytes; raises `msgspec.DecodeError` where they are not of the form."""
        return _made(self._make, cast("type[T]", self._form), self._hook).decode


def from_json(data: bytes | bytearray | str, kind: type[T]) -> T:
    """Read JSON as a value of a type.

    Raises:
        msgspec.DecodeError: It is no JSON, or not of that type.
    """
    return _made(msgspec.json.Decoder, kind).decode(data)


def from_msgpack(data: bytes | memoryview, kind: type[T], *, hook: Hook | None = None) -> T:
    """Read msgpack as a value of a type.

    Raises:
        msgspec.DecodeError: It is no msgpack, or not of that type.
    """
    return _made(msgspec.msgpack.Decoder, kind, hook).decode(data)


def from_toml(data: bytes | str, kind: type[T]) -> T:
    """Read TOML as a value of a type.

    Raises:
        msgspec.DecodeError: It is no TOML, or not of that type.
    """
    _made(msgspec.msgpack.Decoder, kind)
    return msgspec.toml.decode(data, type=kind)


def convert(value: object, kind: type[T], *, strict: bool = True, hook: Hook | None = None) -> T:
    """A value of plain types as one of `kind`; without `strict`, texts are read as numbers and the like.

    Raises:
        msgspec.ValidationError: It is not of that type.
    """
    _made(msgspec.msgpack.Decoder, kind, hook)
    return msgspec.convert(value, kind, strict=strict, dec_hook=hook)


def _made(make: _Make, form: type[T], hook: Hook | None = None) -> _Decoder[T]:
    """A decoder; from now on msgspec knows all classes in the form."""
    with _looking:
        return cast("_Decoder[T]", make(form, dec_hook=hook))
