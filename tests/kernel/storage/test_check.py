"""`AIOS_TEST_CRASHES=1000` makes the loop long; the seed stands in the message of a failure."""

import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import apsw
import pytest
from tests.disk.power import Image, WatchedFolders
from tests.kernel.conftest import OpenKernel
from tests.kernel.storage import crash_agent

from aios.config import Config, Home
from aios.errors import NotFound
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.files import Files
from aios.testing.disk import FaultyDisk

FAIL_SHARE = 0.03
"""Of the moments before a change of the disk."""
N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "2"))
N_IMAGES = 2 * N_CRASHES
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))


def test_after_kill_9_files_are_as_acknowledged_and_nothing_is_half_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    home, real = tmp_path / "home", tmp_path / "real"
    real.mkdir()
    for number in range(N_CRASHES):
        words = (crash_agent.__file__, home, SEED + number, real)
        command = [sys.executable, *map(str, words)]
        acknowledged: dict[int, str] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - our own program
            assert child.stdout is not None
            for _ in range(draw.randrange(crash_agent.N_WORKERS, 40)):
                worker, _, text = child.stdout.readline().rstrip("\n").partition(" ")
                acknowledged[int(worker)] = text
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                if line.endswith("\n"):
                    worker, _, text = line.rstrip("\n").partition(" ")
                    acknowledged[int(worker)] = text
        anyio.run(assert_in_order, home, real, acknowledged)
    with capsys.disabled():
        print(f" [{N_CRASHES} kills among files, seed {SEED}: nothing lost]", end="")  # noqa: T201 - a bar of the project


async def assert_in_order(home: Path, real: Path, acknowledged: dict[int, str]) -> None:
    """What was acknowledged is there, or what its worker did next; both files of a worker agree, and real files are what is listed."""
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await assert_real(kernel, real)
        faults = (await files.check()).faults
        assert faults == (), f"seed {SEED}: {faults[:3]}"
        for worker, text in acknowledged.items():
            folder = crash_agent.folder_of(worker)
            pair = [await found(files, f"{folder}/{name}") for name in ("a", "b")]
            versions = await files.versions(f"{folder}/b", limit=3)
            if pair[1] == "moved":
                pair[1] = await found(files, f"{folder}/ax")
                pair[0] = pair[1]
            assert pair[0] == pair[1], f"half a transaction with seed {SEED}: {pair}, {versions}"
            recent = {pair[0]} | {
                await found(files, each.path, version=each.version) for each in versions[1:]
            }
            assert text in recent, f"lost with seed {SEED}: {text} of {recent}"
            for each in await files.list(folder):
                await assert_found(files, each.path)


async def assert_found(files: Files, path: str) -> None:
    """The index has what the file holds now."""
    word = (await files.read_text(path)).split()[0]
    hits = (await files.retrieve(keywords=[word], under=path, is_waiting=True)).hits
    assert [hit.path for hit in hits] == [path], f"{word} is not found in {path}, seed {SEED}"


async def assert_real(kernel: Kernel, real: Path) -> None:
    files = Files(kernel.init_gate())
    assert await files.mounts(), "the mount survives"
    for mount in kernel.storage.mounts.all():
        with anyio.fail_after(30):
            await mount.settled.wait()
    listed = {each.path: each.version for each in await files.list("/notes", is_deep=True)}
    there = {f"/notes/{each.relative_to(real)}": each for each in real.rglob("*") if each.is_file()}
    assert listed.keys() == there.keys(), f"seed {SEED}"
    for path, version in listed.items():
        assert there[path].read_bytes() == await files.read(path, version=version), f"seed {SEED}"
    authors = await kernel.db.read(
        lambda c: {a for (a,) in c.execute("SELECT author FROM versions")}
    )
    assert authors <= {"/"}, f"a file was found that nobody acknowledged, with seed {SEED}"


async def found(files: Files, path: str, *, version: int | None = None) -> str:
    try:
        return (await files.read_text(path, version=version))[: crash_agent.SHOWN_CHARS]
    except NotFound:
        return "-"


def test_after_a_loss_of_power_files_are_as_acknowledged_in_real_folders_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk drops and tears what was not synced: below SQLite, of large contents, and of the real files."""
    power = Power(tmp_path)
    with power.folders.watched():
        anyio.run(power.run)
    power.disk.unregister()
    assert len(power.images) == N_IMAGES
    for number, (image, acknowledged) in enumerate(power.images):
        home, real = image.folders
        power.settle(number, image)
        anyio.run(assert_in_order, home, real, acknowledged)
    with capsys.disabled():
        print(f" [{N_IMAGES} losses of power among files, seed {SEED}: nothing lost]", end="")  # noqa: T201 - a bar of the project


class Power:
    """Workers on a disk whose power fails at random moments: an image of what would be there, and what was acknowledged before."""

    def __init__(self, folder: Path) -> None:
        self.images: list[tuple[Image, dict[int, str]]] = []
        self._folder = folder
        self._home, self._real = folder / "home", folder / "real"
        for each in (self._home, self._real):
            each.mkdir()
        self._draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
        self._acknowledged: dict[int, str] = {}
        self._is_on = False
        roots = {self._home: frozenset({"blobs"}), self._real: frozenset[str]()}
        self.folders = WatchedFolders(roots, self._fail)
        self.disk = FaultyDisk(f"power-{SEED}", before=lambda *_: self._fail(), is_default=True)

    async def run(self) -> None:
        async with open_kernel(Config(), Home(self._home), engines={}) as kernel:
            files = Files(kernel.init_gate())
            await files.mount(str(self._real), "/notes")
            self._is_on = True
            async with anyio.create_task_group() as tasks:
                for worker in range(crash_agent.N_WORKERS):
                    draw = random.Random(f"{SEED} {worker}")  # noqa: S311 - repeatable on purpose
                    tasks.start_soon(crash_agent.work, files, worker, draw, self._say)
                while self._is_on:
                    await anyio.sleep(0.01)
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
        self._acknowledged[worker] = text[: crash_agent.SHOWN_CHARS]

    def _fail(self) -> None:
        """Perhaps now. What was acknowledged before must be in the image."""
        if not self._is_on or self._draw.random() > FAIL_SHARE:
            return
        with self.folders.guard:
            if not self._is_on:  # another thread was here first
                return
            number = len(self.images)
            acknowledged = dict(self._acknowledged)
            target, seed = self._folder / f"database-{number}", SEED + number
            draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
            image = self.folders.image(
                self._folder / f"image-{number}",
                draw,
                lambda: self.disk.power_fails(self._home, into=target, seed=seed),
            )
            self.images.append((image, acknowledged))
            self._is_on = len(self.images) < N_IMAGES


def execute(connection: apsw.Connection, statement: str) -> None:
    connection.execute(statement)


@pytest.mark.anyio
async def test_contradictions_between_tables_are_found(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "a")
        await files.write("/shared/b", "b")
        for statement, words in (
            ("DELETE FROM files WHERE path = '/shared/a'", "it is not listed"),
            ("UPDATE contents SET n_refs = n_refs + 1", "counted wrongly"),
            ("UPDATE blobs SET n_refs = 7", "references"),
        ):
            await kernel.db.write(partial(execute, statement=statement))
            faults = (await files.check()).faults
            assert any(words in fault for fault in faults), words
