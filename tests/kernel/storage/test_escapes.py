"""Ways out of a mounted folder, tried on every call that takes a path: none leads out.

`AIOS_TEST_RACES_S` makes the races with swapped links longer.
"""

import itertools
import os
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from aios.abi.storage import Copy
from aios.config import Config, Home
from aios.errors import AiosError
from aios.kernel.kernel import open_kernel
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio

RACES_S = float(os.environ.get("AIOS_TEST_RACES_S", "1"))
SECRET = "nobody may read this"  # noqa: S105 - the bait, no password

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


def attempts() -> list[str]:
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


def plant(real: Path, outside: Path) -> None:
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


def tries(files: Files, path: str) -> list[Callable[[], Coroutine[object, object, object]]]:
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


async def test_no_attempt_leads_out_of_a_mounted_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, outside = tmp_path / "real", tmp_path / "outside"
    for folder in (real, outside):
        folder.mkdir()
    (outside / "secret").write_text(SECRET)
    (real / "plain").write_text("plain")
    plant(real, outside)
    n_attempts = n_out = 0
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await files.mount(str(real), "/notes")
        for path in attempts():
            for attempt in tries(files, path):
                n_attempts += 1
                try:
                    with anyio.fail_after(10):
                        found = await attempt()
                except AiosError:
                    continue
                n_out += isinstance(found, bytes) and found not in (
                    b"pwned",
                    b"plain",
                    b"plainpwned",
                )
        for each in await files.list("/", is_deep=True):
            n_out += SECRET.encode() in await files.read(each.path)
        assert (await files.check()).faults == ()
    assert [each.name for each in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == SECRET
    with capsys.disabled():
        print(f" [{n_attempts} attempts to escape, {n_out} succeeded]", end="")  # noqa: T201 - a bar of the project
    assert n_attempts >= 300
    assert n_out == 0


@contextmanager
def swapping(real: Path, outside: Path) -> Iterator[None]:
    """A folder that is a link to the outside every other moment."""
    is_over = threading.Event()
    folder, aside = real / "swapped", real / "aside"

    def swap() -> None:
        while not is_over.is_set():
            with suppress(OSError):  # the kernel makes the folder, too
                folder.mkdir()
            with suppress(OSError):
                folder.rename(aside)
                folder.symlink_to(outside)
            with suppress(OSError):
                folder.unlink()
            shutil.rmtree(aside, ignore_errors=True)

    thread = threading.Thread(target=swap)  # noqa: TID251 - a foreign program, which is no task of ours
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


async def test_who_swaps_a_folder_for_a_link_while_we_write_gains_nothing(tmp_path: Path) -> None:
    real, outside = tmp_path / "real", tmp_path / "outside"
    for folder in (real, outside):
        folder.mkdir()
    (outside / "secret").write_text(SECRET)
    n_refused = n_done = 0
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await files.mount(str(real), "/notes")
        with swapping(real, outside), anyio.move_on_after(RACES_S):
            while True:
                for path in ("/notes/swapped/secret", "/notes/swapped/deep/new"):
                    try:
                        await files.write(path, "pwned")
                        assert SECRET.encode() not in await files.read(path)
                        n_done += 1
                    except AiosError:
                        n_refused += 1
        for each in await files.list("/notes", is_deep=True):
            assert SECRET.encode() not in await files.read(each.path)
        assert (await files.check()).faults == ()
    assert [each.name for each in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == SECRET
    assert n_done + n_refused > 0
