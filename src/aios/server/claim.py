"""One kernel for each `AIOS_HOME`: the lock, the owner's token, and the file that tells where the kernel listens.

AIOS_HOME/token             the owner's token, mode 600, made at the first start
AIOS_HOME/run/kernel.lock   held by flock for as long as the kernel lives; the system lets go of it whatever happens
AIOS_HOME/run/kernel.json   who holds it and where it listens
AIOS_HOME/run/kernel.sock   the socket
"""

import fcntl
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from aios.config import Home
from aios.errors import ConfigError, Conflict
from aios.home import not_writable
from aios.sdk.discovery import ADDRESS_FILE, LOCK_FILE, KernelAddress, read_address
from aios.sdk.packets import MAX_SOCKET_PATH_BYTES

SOCKET_FILE = "kernel.sock"
SHORT_PREFIX = "aios-"
"""Of the folder for a socket whose own path would be too long."""
PROBE_S = 1.0
TOKEN_PREFIX = "aios_"  # noqa: S105 - the public part of a token
MIN_TOKEN_CHARS = 32
LOCK_TRIES = 10
LOCK_PAUSE_S = 0.02
"""Who only looks whether the lock is held holds it for an instant; so it is tried more than once."""


class Claim(Struct, frozen=True):
    """An `AIOS_HOME` that is ours until the block of `claim_home` ends."""

    home: Home
    socket: Path
    token: str

    def publish(self, address: KernelAddress) -> None:
        """Tell everybody where the kernel listens.

        Raises:
            ConfigError: The home cannot be written to.
        """
        try:
            _write_private(self.home.run / ADDRESS_FILE, msgspec.json.encode(address))
        except OSError as error:
            raise not_writable(self.home, error) from error

    def withdraw(self) -> None:
        """Remove what points to this kernel; twice is nothing."""
        (self.home.run / ADDRESS_FILE).unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.home.run:
            with suppress(OSError):  # gone already
                self.socket.parent.rmdir()


@asynccontextmanager
async def claim_home(home: Home) -> AsyncIterator[Claim]:
    """Hold an `AIOS_HOME` for one kernel.

    Raises:
        Conflict: Another kernel serves it.
        ConfigError: It cannot be written to, or its token file is not private.
    """
    try:
        _make_private(home.run)
        descriptor = os.open(home.run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_writable(home, error) from error
    try:
        await _lock(descriptor, home)
        _remove_stale(home.run)
        _remove_drafts(home)
        claim = Claim(home, socket_path(home.run), owner_token(home))
        try:
            yield claim
        finally:
            claim.withdraw()
    finally:
        os.close(descriptor)


def owner_token(home: Home) -> str:
    """The owner's token, made if there is none.

    Raises:
        ConfigError: Others may read the file, or it holds no token.
    """
    file = home.token_file
    if not file.exists():
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        try:
            _write_private(file, f"{token}\n".encode("ascii"))
        except OSError as error:
            raise not_writable(home, error) from error
        return token
    status = file.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"the token file {file} is open to others (mode {stat.S_IMODE(status.st_mode):o})",
            hint=f"`chmod 600 {file}`; if somebody may have read it, delete it and a new one is made",
        )
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {file} cannot be read", hint="delete it") from error
    if len(token) < MIN_TOKEN_CHARS or not token.isprintable():
        raise ConfigError(
            f"the token file {file} holds no token of {MIN_TOKEN_CHARS} characters or more",
            hint="delete it and a new one is made",
        )
    return token


def socket_path(run: Path) -> Path:
    """Where the socket goes: into `run`, or into a private folder with a short name if that path is too long."""
    wanted = run / SOCKET_FILE
    if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH_BYTES:
        return wanted
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_SOCKET_PATH_BYTES // 2 or not Path(base).is_dir():
        base = "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it
    return Path(tempfile.mkdtemp(prefix=SHORT_PREFIX, dir=base)) / SOCKET_FILE


async def _lock(descriptor: int, home: Home) -> None:
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        await anyio.sleep(LOCK_PAUSE_S)
    raise _taken(home)


def _taken(home: Home) -> Conflict:
    hint = "use that one (`aios ps`), end it (`aios shutdown`), or set another AIOS_HOME"
    other = read_address(home.run)
    if other is None:
        return Conflict(
            f"{home.root} is already served by a kernel that is starting or ending", hint=hint
        )
    since = datetime.fromtimestamp(other.started_unix_s).astimezone().isoformat(" ", "seconds")
    kind = " (embedded in a command)" if other.embedded else ""
    where = other.urls[-1] if other.urls else "no address"
    return Conflict(
        f"{home.root} is already served by pid {other.os_pid}{kind} since {since}, at {where}",
        hint=hint,
    )


def _remove_stale(run: Path) -> None:
    """Remove the socket of a kernel that was killed; only the holder of the lock may.

    A home that was copied or moved names a socket that may be another kernel's by now; that is left alone.
    """
    address = read_address(run)
    stale = run / SOCKET_FILE
    if address is not None and address.unix_path is not None:
        told = Path(address.unix_path)
        if told.parent.name.startswith(SHORT_PREFIX) and not _is_answered(told):
            stale = told
    Claim(Home(run.parent), stale, "").withdraw()


def _remove_drafts(home: Home) -> None:
    """Remove what a kernel that was killed had begun to write, a token perhaps; only the holder of the lock may."""
    for file in (home.token_file, home.run / ADDRESS_FILE):
        for draft in file.parent.glob(f".{file.name}.*"):
            draft.unlink(missing_ok=True)


def _is_answered(path: Path) -> bool:
    """Whether a kernel listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        return probe.connect_ex(str(path)) == 0


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _write_private(file: Path, data: bytes) -> None:
    """Write a file of mode 600 so that nobody ever sees half of it."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
