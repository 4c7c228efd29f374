"""Secrets: values that are put into requests on their way out, so that no program ever holds one.

A program has a placeholder in its environment, `NAME=aios-secret:NAME`, and writes it into a header; the proxy puts the value in its place for the hosts that
the owner named with it, and takes it out of what they answer. The values are in one file of `AIOS_HOME`, mode 600.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from aios.errors import AccessDenied, ConfigError, InvalidCall, NotFound
from aios.readers import from_json

PLACEHOLDER = "aios-secret:"
MIN_CHARS, MAX_CHARS = 8, 8_192
"""Shorter ones could not be told from other text in an answer."""
NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_USED = re.compile(rf"{PLACEHOLDER}([A-Z][A-Z0-9_]{{0,63}})")

SecretName = Annotated[str, Meta(pattern=rf"^{NAME.pattern}(?!\n)$")]


class Secret(Struct, frozen=True, forbid_unknown_fields=True):
    """A value, and the hosts that it may be sent to, as they stand in `egress.hosts`."""

    value: str
    hosts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Secret(***, hosts={self.hosts!r})"

    __str__ = __repr__


class SecretStore:
    """The file of secrets. It is read for each use: what the owner removes is gone at once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> dict[str, Secret]:
        """All secrets by their names.

        Raises:
            ConfigError: Others can read the file, or it is damaged.
        """
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                raise ConfigError(
                    f"others can read {self._file}", hint=f"chmod 600 {self._file}, and change the secrets"
                )  # fmt: skip
            data = file.read()
        try:
            return from_json(data, dict[SecretName, Secret])
        except msgspec.DecodeError:  # its message could quote a value
            raise ConfigError(f"{self._file} is damaged", hint="set the secrets anew") from None

    def put(self, name: str, secret: Secret) -> None:
        """Add a secret, or replace it.

        Raises:
            InvalidCall: Its name or value is none.
        """
        if NAME.fullmatch(name) is None:
            raise InvalidCall(f"{name!r} is no name", hint="use A-Z, 0-9 and _, such as API_KEY")
        value = secret.value
        if not MIN_CHARS <= len(value) <= MAX_CHARS or not (
            value.isascii() and value.isprintable()
        ):
            raise InvalidCall(
                f"a secret has {MIN_CHARS} to {MAX_CHARS} characters of printable ASCII",
                hint="give it on standard input, on one line",
            )
        if not secret.hosts or any("*" in host.removeprefix("*.") for host in secret.hosts):
            raise InvalidCall(
                "a secret needs the hosts that it is for", hint="--host api.example.com"
            )
        self._save({**self.load(), name: secret})

    def remove(self, name: str) -> None:
        """Forget a secret.

        Raises:
            NotFound: There is none of that name.
        """
        found = self.load()
        if found.pop(name, None) is None:
            raise NotFound(f"no secret {name}", hint="`aios secret ls`")
        self._save(found)

    def _save(self, found: Mapping[str, Secret]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(found))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._file)


def placeholder(name: str) -> str:
    """What a program holds instead of a secret."""
    return f"{PLACEHOLDER}{name}"


def names_in(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The secrets whose placeholders are in these headers."""
    return frozenset(name for _, value in headers for name in _USED.findall(value))


def filled(
    headers: Sequence[tuple[str, str]], values: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Headers with the values in place of the placeholders.

    Raises:
        AccessDenied: There is no value for one of them.
    """

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise AccessDenied(f"no secret {found[1]} for this host", hint="`aios secret ls`")
        return values[found[1]]

    return tuple((name, _USED.sub(value_of, value)) for name, value in headers)


class Mask:
    """Takes secrets out of a stream of bytes, wherever pieces are cut: each becomes as many asterisks, so that no length changes."""

    def __init__(self, values: Iterable[str]) -> None:
        self._values = sorted({value.encode() for value in values}, key=len, reverse=True)
        """The longest come first: one may begin with another."""
        self._longest = max(map(len, self._values), default=1)
        self._pattern = re.compile(b"|".join(map(re.escape, self._values)))
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """What of the stream can go on; where one could begin that is not there whole is kept as it came."""
        data = self._kept + piece
        return self._masked(data, max(0, len(data) - self._longest + 1))

    def finish(self) -> bytes:
        """What is left."""
        return self._masked(self._kept, len(self._kept))

    def _masked(self, data: bytes, end: int) -> bytes:
        """What is before `end`, and what of a secret goes beyond it."""
        if not any(value in data for value in self._values):  # a tenth of what the pattern takes
            self._kept = data[end:]
            return data[:end]
        pieces, at = list[bytes](), 0
        for found in self._pattern.finditer(data):
            if found.start() >= end:
                break
            pieces += (data[at : found.start()], b"*" * len(found[0]))
            at = found.end()
        end = max(at, end)
        self._kept = data[end:]
        return b"".join((*pieces, data[at:end]))
