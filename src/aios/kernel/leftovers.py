"""What programs left behind on this machine: their code as it was, and their processes when a kernel was killed."""

import os
import signal
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from aios.plainfile import read_plain

CODE_SUFFIXES = (".py", ".toml")
MAX_CODE_FILES = 2_000
MAX_CODE_BYTES = 64 << 20


def code_hash(folder: Path | str) -> bytes:
    """The digest of a program's code: the `.py` and `.toml` files in its folder. Others may be what it works on.

    A folder with more than `MAX_CODE_FILES` files or `MAX_CODE_BYTES` bytes is digested up to there. Waits for the disk.
    """
    digest, room_bytes = blake2b(digest_size=16), MAX_CODE_BYTES
    root = Path(folder)
    for path in _files(root)[:MAX_CODE_FILES]:
        with suppress(OSError):  # it vanished meanwhile, or is not ours to read
            data = read_plain(path, room_bytes) or b""
            room_bytes -= len(data)
            name = str(path.relative_to(root)).encode("utf-8", "surrogateescape")
            digest.update(len(name).to_bytes(4, "big") + name)
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def os_start_of(os_pid: int) -> int:
    """When a process of the operating system began, in ticks since the boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{os_pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # Its name stands in brackets and may hold anything; field 22 counts from before it.
    return int(text.rpartition(")")[2].split()[19])


def kill_leftover(os_pid: int, os_start: int) -> bool:
    """Kill the process group of a program whose kernel is gone, if that pid is still the same. Returns: whether it was there."""
    if not os_pid or not os_start or os_start_of(os_pid) != os_start:
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(os_pid, signal.SIGKILL)
    return True


def _files(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        found += [Path(folder) / name for name in sorted(names) if name.endswith(CODE_SUFFIXES)]
        if len(found) > MAX_CODE_FILES:
            break
    return [path for path in found if path.is_file()]
