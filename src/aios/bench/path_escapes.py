"""Ways out of a mounted folder, tried on calls that take a path, while another program swaps a folder for a link to the outside."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from aios.abi.storage import Copy
from aios.config import Config, Home
from aios.errors import AiosError, NotFound
from aios.kernel.kernel import open_kernel
from aios.sdk.files import Files

SECRET = "nobody may read this"  # noqa: S105 - the bait, no password
LONGEST_S = 10.0
OURS = (b"pwned", b"plain", b"plainpwned")
"""What may be read: nothing but what was written below the mount."""

UPS = ("..", "\uff0e\uff0e", "\u2025", ". .", "..\u200b", "..\\", "..\0", "%2e%2e", ".\u00ad.")
PLANTED = (
    *("link-file", "link-folder/secret", "link-up/outside/secret", "link-absolute/etc/passwd"),
    *(
        "hard",
        "pipe",
        "socket",
        "link-loop",
        "link-proc/self/environ",
        "link-dev/null",
        "link-chain",
    ),
    *("deep/link-folder/secret", "link-folder", "link-folder/new", "link-dangling", ".git/config"),
)


@dataclass
class Escapes:
    """How many attempts were made, of them in the race, and what came of those that should have come to nothing."""

    n_attempts: int = 0
    n_raced: int = 0
    faults: list[str] = field(default_factory=list)


async def try_to_escape(folder: Path, *, races_s: float) -> Escapes:
    """Try every way out of a folder that is mounted, then for a while those through a folder that is now one, now a link, and one in the place of the mount."""
    real, outside = folder / "real", folder / "outside"
    for each in (real, outside):
        each.mkdir()
    (outside / "secret").write_text(SECRET)
    (real / "plain").write_text("plain")
    _plant(real, outside)
    escapes = Escapes()
    async with open_kernel(Config(), Home(folder / "home"), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await files.mount(str(real), "/notes")
        await _try_paths(files, escapes)
        with _swapping(real, outside):
            await _race(files, escapes, races_s)
        _link(real, outside)
        await _try_root(files, escapes)
        for info in await files.list("/", is_deep=True):
            with suppress(NotFound):  # what was swapped last may go only now
                if SECRET.encode() in await files.read(info.path):
                    escapes.faults.append(f"{info.path} holds what is outside")
        escapes.faults += (await files.check()).faults
    if [each.name for each in outside.iterdir()] != ["secret"]:
        escapes.faults.append("a file was made outside")
    elif (outside / "secret").read_text() != SECRET:
        escapes.faults.append("a file outside was changed")
    return escapes


async def _try_paths(files: Files, escapes: Escapes) -> None:
    for path in _attempts():
        for attempt in _tries(files, path):
            escapes.n_attempts += 1
            try:
                with anyio.fail_after(LONGEST_S):
                    found = await attempt()
            except AiosError:
                continue
            except TimeoutError:
                escapes.faults.append(f"a call at {path!r} hung")
                continue
            if isinstance(found, bytes) and found not in OURS:
                escapes.faults.append(f"{path!r} leads to {found[:40]!r}")


async def _race(files: Files, escapes: Escapes, races_s: float) -> None:
    with anyio.move_on_after(races_s):
        while True:
            for path in ("/notes/swapped/secret", "/notes/swapped/deep/new"):
                escapes.n_attempts += 1
                escapes.n_raced += 1
                try:
                    await files.write(path, "pwned")
                    if SECRET.encode() in await files.read(path):
                        escapes.faults.append(f"{path} led outside for a moment")
                except AiosError:
                    pass  # refused, or changed by another program meanwhile


def _link(real: Path, outside: Path) -> None:
    """Put a link in the place of the mounted folder itself."""
    real.rename(real.with_name("real before"))
    real.symlink_to(outside)


async def _try_root(files: Files, escapes: Escapes) -> None:
    """The mounted folder itself is a link: try, until the kernel has looked for the folder again."""
    with anyio.move_on_after(LONGEST_S):
        while "is a symbolic link now" not in (await files.mounts())[0].note:
            for path in ("/notes/secret", "/notes/new"):
                escapes.n_attempts += 1
                with suppress(AiosError):
                    await files.write(path, "pwned")
                    escapes.faults.append(f"{path} was written over a link in the place of a mount")
            await anyio.sleep(0.02)
        return
    escapes.faults.append("a link in the place of a mount is not told")


def _attempts() -> list[str]:
    """Paths that would lead out if anything took them by their word."""
    climbs = [
        f"{start}{slash.join([up] * 3)}{slash}{target}"
        for up, slash, target, start in itertools.product(
            UPS, ("/", "\uff0f"), ("outside/secret", "etc/passwd"), ("/notes/", "/notes/deep/")
        )
    ]
    absolute = [
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        "/dev/null",
        "/notes\0/x",
        "file:///etc/passwd",
    ]
    return [*climbs, *absolute, *(f"/notes/{each}" for each in PLANTED)]


def _plant(real: Path, outside: Path) -> None:
    """Everything in the folder that is not what it seems."""
    (real / "deep").mkdir()
    (real / ".git").mkdir()
    (real / ".git" / "config").write_text(SECRET)
    for name, target in {
        "link-file": outside / "secret",
        "link-folder": outside,
        "link-up": Path(".."),
        "link-absolute": Path("/"),
        "link-loop": Path("link-loop"),
        "link-proc": Path("/proc"),
        "link-dev": Path("/dev"),
        "link-chain": Path("link-file"),
        "link-dangling": outside / "new",
        "deep/link-folder": outside,
    }.items():
        (real / name).symlink_to(target)
    os.link(outside / "secret", real / "hard")
    os.mkfifo(real / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(real / "socket"))


def _tries(files: Files, path: str) -> list[Callable[[], Coroutine[object, object, object]]]:
    """A read and a write; at what was planted, the rest of what may be done at a path, too."""
    found: list[Callable[[], Coroutine[object, object, object]]] = [
        lambda: files.read(path),
        lambda: files.write(path, "pwned"),
        lambda: files.edit([Copy(source="/notes/plain", target=path)]),
    ]
    if path.removeprefix("/notes/") not in PLANTED:
        return found
    return [
        *found,
        lambda: files.append(path, "pwned"),
        lambda: files.copy(path, "/shared/stolen"),
        lambda: files.delete(path),
    ]


_SWAPPER = """\
import shutil, sys
from contextlib import suppress
from pathlib import Path
real, outside = map(Path, sys.argv[1:])
folder, aside = real / "swapped", real / "aside"
print("ready", flush=True)
while True:
    with suppress(OSError):  # the kernel makes the folder, too
        folder.mkdir()
    with suppress(OSError):
        folder.rename(aside)
        folder.symlink_to(outside)
    with suppress(OSError):
        folder.unlink()
    shutil.rmtree(aside, ignore_errors=True)
"""


@contextmanager
def _swapping(real: Path, outside: Path) -> Iterator[None]:
    """Another program that makes a folder a link to the outside every other moment."""
    command = [sys.executable, "-c", _SWAPPER, str(real), str(outside)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:  # noqa: S603 - our own program
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.kill()
