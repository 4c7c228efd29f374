"""Kernels that are killed, or lose their power, among changes of files: is what they acknowledged there, and nothing half done?

The programs that are killed are `crash_files.py`. Every function returns what was found wrong, which should be nothing.
"""

import random
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import apsw

from aios.bench import crash_files
from aios.config import Config, Home
from aios.errors import NotFound
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.files import Files
from aios.testing.disk import FaultyDisk
from aios.testing.folders import Image, WatchedFolders

FAIL_SHARE = 0.03
"""Of the moments before a change of the disk, those at which the power fails."""
SETTLE_S = 30.0


def kills(folder: Path, n: int, seed: int) -> list[str]:
    """Kill a kernel `n` times, and look after each."""
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    home, real = folder / "home", folder / "real"
    real.mkdir()
    faults = []
    for number in range(n):
        words = (crash_files.__file__, home, seed + number, real)
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            n_lines = draw.randrange(crash_files.N_WORKERS, 40)
            lines = [child.stdout.readline() for _ in range(n_lines)]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout
        if not lines[n_lines - 1]:
            faults.append(f"kill {number}: the kernel had ended before")
        acknowledged = _last_of_each(lines)
        faults += [f"kill {number}: {each}" for each in look(home, real, acknowledged)]
    return faults


def losses(folder: Path, n: int, seed: int) -> list[str]:
    """Let the power fail `n` times; each image of the disk is a home to start from.

    The disk drops and tears what was not synced: below SQLite, of large contents, and of the real files.
    """
    power = _Power(folder, n, seed)
    with power.folders.watched():
        anyio.run(power.run)
    power.disk.unregister()
    faults = [] if len(power.images) == n else [f"the power failed {len(power.images)} times"]
    for number, (image, acknowledged) in enumerate(power.images):
        home, real = image.folders
        power.settle(number, image)
        faults += [f"loss {number}: {each}" for each in look(home, real, acknowledged)]
    return faults


def look(home: Path, real: Path, acknowledged: dict[int, str]) -> list[str]:
    """What is wrong in a home.

    What was acknowledged is there, or what its worker did next; both files of a worker agree, and real files are what is listed.
    """
    return anyio.run(_look, home, real, acknowledged)


async def _look(home: Path, real: Path, acknowledged: dict[int, str]) -> list[str]:
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        faults = await _real_faults(kernel, files, real)
        faults += (await files.check()).faults
        for worker, text in acknowledged.items():
            faults += await _worker_faults(files, worker, text)
    return faults


async def _worker_faults(files: Files, worker: int, text: str) -> list[str]:
    folder = crash_files.folder_of(worker)
    pair = [await _found(files, f"{folder}/{name}") for name in ("a", "b")]
    versions = await files.versions(f"{folder}/b", limit=3)
    if pair[1] == "moved":
        pair = [await _found(files, f"{folder}/ax")] * 2
    faults = [] if pair[0] == pair[1] else [f"half a transaction: {pair}, {versions}"]
    recent = {pair[0]}
    recent |= {await _found(files, each.path, version=each.version) for each in versions[1:]}
    if text not in recent:
        faults.append(f"lost: {text!r} of {recent}")
    for each in await files.list(folder):
        word = (await files.read_text(each.path)).split()[0]
        hits = (await files.retrieve(keywords=[word], under=each.path, is_waiting=True)).hits
        if [hit.path for hit in hits] != [each.path]:
            faults.append(f"{word} is not found in {each.path}")
    return faults


async def _real_faults(kernel: Kernel, files: Files, real: Path) -> list[str]:
    faults = [] if await files.mounts() else ["the mount is gone"]
    for mount in kernel.storage.mounts.all():
        with anyio.fail_after(SETTLE_S):
            await mount.settled.wait()
    listed = {each.path: each.version for each in await files.list("/notes", is_deep=True)}
    there = _contents(real)
    if listed.keys() != there.keys():
        faults.append(f"listed or real, and not both: {sorted(listed.keys() ^ there.keys())}")
    faults += [
        f"{path} is not what its version holds"
        for path in listed.keys() & there.keys()
        if there[path] != await files.read(path, version=listed[path])
    ]
    authors = await kernel.db.read(
        lambda c: {a for (a,) in c.execute("SELECT DISTINCT author FROM versions")}
    )
    if not authors <= {"/"}:
        faults.append(f"a file that nobody acknowledged: {authors}")
    return faults


def _contents(real: Path) -> dict[str, bytes]:
    """The real files, by their paths in the mount."""
    files = [each for each in real.rglob("*") if each.is_file()]
    return {f"/notes/{each.relative_to(real)}": each.read_bytes() for each in files}


async def _found(files: Files, path: str, *, version: int | None = None) -> str:
    try:
        return (await files.read_text(path, version=version))[: crash_files.SHOWN_CHARS]
    except NotFound:
        return "-"


def _last_of_each(lines: list[str]) -> dict[int, str]:
    """What each worker said last."""
    told = (line.rstrip("\n").partition(" ") for line in lines if line.endswith("\n"))
    return {int(worker): text for worker, _, text in told}


class _Power:
    """Workers on a disk whose power fails at random moments: an image of what would be there, and what was acknowledged before."""

    def __init__(self, folder: Path, n: int, seed: int) -> None:
        self.images: list[tuple[Image, dict[int, str]]] = []
        self._folder, self._n, self._seed = folder, n, seed
        self._home, self._real = folder / "home", folder / "real"
        for each in (self._home, self._real):
            each.mkdir()
        self._draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._acknowledged: dict[int, str] = {}
        self._is_full = anyio.Event()
        self._is_on = False
        roots = {self._home: frozenset({"blobs"}), self._real: frozenset[str]()}
        self.folders = WatchedFolders(roots, self._fail)
        self.disk = FaultyDisk(f"power-{seed}", before=lambda *_: self._fail(), is_default=True)

    async def run(self) -> None:
        """Work until the power has failed often enough."""
        async with open_kernel(Config(), Home(self._home), engines={}) as kernel:
            files = Files(kernel.init_gate())
            await files.mount(str(self._real), "/notes")
            self._is_on = True
            async with anyio.create_task_group() as tasks:
                for worker in range(crash_files.N_WORKERS):
                    draw = random.Random(f"{self._seed} {worker}")  # noqa: S311 - repeatable on purpose
                    tasks.start_soon(crash_files.work, files, worker, draw, self._say)
                await self._is_full.wait()
                tasks.cancel_scope.cancel()

    def settle(self, number: int, image: Image) -> None:
        """Put the database of an image in its home, which knows the real files by what the copies are now."""
        home, real = image.folders
        for file in (self._folder / f"database-{number}").iterdir():
            file.rename(home / file.name)
        connection = apsw.Connection(str(home / "aios.db"))
        connection.execute(
            "UPDATE mounts SET folder = ?, inode = ?", (str(real), real.stat().st_ino)
        )
        for path, *stat in list(
            connection.execute("SELECT path, inode, size_bytes, mtime_ns FROM mount_files")
        ):
            copy = image.files.get(tuple(stat))
            if copy is not None:
                now = copy.stat()
                stamp = (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns, path)
                connection.execute(
                    "UPDATE mount_files SET inode = ?, size_bytes = ?, mtime_ns = ?, ctime_ns = ? WHERE path = ?",
                    stamp,
                )
        connection.close()

    def _say(self, worker: int, text: str) -> None:
        self._acknowledged[worker] = text[: crash_files.SHOWN_CHARS]
        if not self._is_on:
            self._is_full.set()

    def _fail(self) -> None:
        """Perhaps now. What was acknowledged before must be in the image."""
        if not self._is_on or self._draw.random() > FAIL_SHARE:
            return
        with self.folders.guard:
            if not self._is_on:  # another thread was here first
                return
            number = len(self.images)
            acknowledged = dict(self._acknowledged)
            target, seed = self._folder / f"database-{number}", self._seed + number
            draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
            image = self.folders.image(
                self._folder / f"image-{number}",
                draw,
                lambda: self.disk.power_fails(self._home, into=target, seed=seed),
            )
            self.images.append((image, acknowledged))
            self._is_on = len(self.images) < self._n
