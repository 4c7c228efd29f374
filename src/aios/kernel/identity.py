"""Identity: which process a token stands for.

Tokens are random, kept only as hashes, and looked up by hash, so the time of a look-up says nothing about them.
"""

import hashlib
import re
import secrets
from collections.abc import Callable

from aios.abi.types import Pid
from aios.errors import Unauthenticated

TOKEN_PREFIX = "aios_"  # noqa: S105 - the public part of a token
GUEST_SEPARATOR = "."
MAX_TOKEN_CHARS = 256

_GUEST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Tokens:
    """The tokens that are in force: at most one for each process."""

    def __init__(self, on_issue: Callable[[Pid], None] = lambda _: None) -> None:
        self._on_issue = on_issue
        self._pids: dict[bytes, Pid] = {}
        self._digests: dict[Pid, bytes] = {}

    def issue(self, pid: Pid, token: str = "") -> str:
        """Give a process a token (a new one unless given); the one that it had is void."""
        token = token or TOKEN_PREFIX + secrets.token_urlsafe(32)
        self.revoke(pid)
        digest = _digest(token)
        self._pids[digest], self._digests[pid] = pid, digest
        self._on_issue(pid)
        return token

    def restore(self, pid: Pid, digest: bytes) -> None:
        """Make the token with this digest that of a process, which has none."""
        self._pids[digest], self._digests[pid] = pid, digest

    def digest_of(self, pid: Pid) -> bytes:
        """The digest of a process's token; empty if it has none."""
        return self._digests.get(pid, b"")

    def revoke(self, pid: Pid) -> None:
        """Make the token of a process void, if it has one."""
        digest = self._digests.pop(pid, None)
        if digest is not None:
            del self._pids[digest]

    def find(self, token: str) -> Pid | None:
        """The process that a token stands for."""
        return self._pids.get(_digest(token)) if len(token) <= MAX_TOKEN_CHARS else None

    def __len__(self) -> int:
        return len(self._pids)


def split_guest(token: str) -> tuple[str, str]:
    """The two parts of `TOKEN.NAME`: whose token it is, and the name of a guest of that process; "" if there is none.

    Raises:
        Unauthenticated: The name is malformed.
    """
    owner, separator, name = token[: MAX_TOKEN_CHARS + 1].partition(GUEST_SEPARATOR)
    if separator and not _GUEST_NAME.fullmatch(name):
        hint = "use at most 64 letters, digits, - and _"
        raise Unauthenticated("the guest's name in the token is malformed", hint=hint)
    return owner, name


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
