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
from tests.kernel.conftest import OpenKernel
from tests.kernel.storage import crash_agent

from aios.config import Config, Home
from aios.errors import NotFound
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.files import Files

N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "4"))
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))


def test_after_kill_9_files_are_as_acknowledged_and_nothing_is_half_done(tmp_path: Path) -> None:
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    home, real = tmp_path / "home", tmp_path / "real"
    real.mkdir()
    for number in range(N_CRASHES):
        words = (crash_agent.__file__, home, SEED + number, real)
        command = [sys.executable, *map(str, words)]
        acknowledged: dict[str, str] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - our own program
            assert child.stdout is not None
            for _ in range(draw.randrange(crash_agent.N_WORKERS, 40)):
                worker, text = child.stdout.readline().split()
                acknowledged[worker] = text
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                if line.endswith("\n"):
                    worker, text = line.split()
                    acknowledged[worker] = text
        anyio.run(assert_in_order, home, real, acknowledged)


async def assert_in_order(home: Path, real: Path, acknowledged: dict[str, str]) -> None:
    """What was acknowledged is there, or what its worker did next; both files of a worker agree, and real files are what is listed."""
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await assert_real(kernel, real)
        assert (await files.check()).faults == (), f"seed {SEED}"
        for worker, text in acknowledged.items():
            folder = crash_agent.folder_of(int(worker))
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
        return (await files.read_text(path, version=version))[:40]
    except NotFound:
        return "-"


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
