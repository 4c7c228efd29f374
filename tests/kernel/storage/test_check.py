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
from aios.kernel.kernel import open_kernel
from aios.sdk.files import Files

N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "4"))
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))


def test_after_kill_9_files_are_as_acknowledged_and_nothing_is_half_done(tmp_path: Path) -> None:
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    for number in range(N_CRASHES):
        command = [sys.executable, crash_agent.__file__, str(tmp_path), str(SEED + number)]
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
        anyio.run(assert_in_order, tmp_path, acknowledged)


async def assert_in_order(home: Path, acknowledged: dict[str, str]) -> None:
    """What was acknowledged is there, or what its worker did next; and both files of a worker agree."""
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        assert (await files.check()).faults == (), f"seed {SEED}"
        for worker, text in acknowledged.items():
            pair = [await found(files, f"/shared/{worker}/{name}") for name in ("a", "b")]
            versions = await files.versions(f"/shared/{worker}/b", limit=3)
            if pair[1] == "moved":
                pair[1] = await found(files, f"/shared/{worker}/ax")
                pair[0] = pair[1]
            assert pair[0] == pair[1], f"half a transaction with seed {SEED}: {pair}, {versions}"
            recent = {pair[0]} | {
                await found(files, each.path, version=each.version) for each in versions[1:]
            }
            assert text in recent, f"lost with seed {SEED}: {text} of {recent}"


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
