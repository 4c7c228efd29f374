"""Where the kernel of an `AIOS_HOME` listens, if one runs."""

import fcntl
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from aios.errors import KernelUnreachable
from aios.readers import from_json

ADDRESS_FILE = "kernel.json"
LOCK_FILE = "kernel.lock"
UNIX_PREFIX = "unix://"


class KernelAddress(Struct, frozen=True):
    """What a running kernel tells about itself in `run/kernel.json`; the first url is the quickest."""

    os_pid: int
    urls: tuple[str, ...]
    embedded: bool
    """It lives inside an `aios run` or `aios chat` and ends with it."""
    started_unix_s: float
    version: str = ""

    @property
    def unix_path(self) -> str | None:
        """The path of its Unix socket."""
        return next((path for url in self.urls if (path := unix_path_of(url))), None)

    @property
    def http_url(self) -> str | None:
        """Its base URL for HTTP."""
        return next((url for url in self.urls if url.startswith("http")), None)


def unix_path_of(url: str) -> str | None:
    """The path in a `unix://` URL; None for another kind of URL."""
    return url.removeprefix(UNIX_PREFIX) if url.startswith(UNIX_PREFIX) else None


def find_kernel(home: Path) -> KernelAddress | None:
    """The kernel that serves this `AIOS_HOME` now, or None. What a dead kernel left behind is not believed."""
    run = home / "run"
    address = read_address(run)
    if address is None or not _is_running(address.os_pid) or not is_locked(run / LOCK_FILE):
        return None
    return address


def holds(kernel: KernelAddress, home: Path) -> bool:
    """Whether that kernel has this `AIOS_HOME` still: one that is ending answers nobody, and holds it until all is closed."""
    run = home / "run"
    now = read_address(run)
    if now is not None and now.os_pid != kernel.os_pid:
        return False
    return _is_running(kernel.os_pid) and is_locked(run / LOCK_FILE)


def read_address(run: Path) -> KernelAddress | None:
    """What `kernel.json` says, whether or not the kernel still runs."""
    try:
        return from_json((run / ADDRESS_FILE).read_bytes(), KernelAddress)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_locked(lock: Path) -> bool:
    """Whether a kernel holds this lock. Looks by taking it, shared and for a moment."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_token(home: Path) -> str:
    """The owner's token.

    Raises:
        KernelUnreachable: There is no token file yet, or it belongs to somebody else.
    """
    file = home / "token"
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KernelUnreachable(
            f"the owner's token cannot be read from {file}: {error}",
            hint="`aios serve` makes it at its first start; pass another token with AIOS_TOKEN",
        ) from error


def _is_running(os_pid: int) -> bool:
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
