"""`AIOS_TEST_CRASHES=1000` makes the loop long; the seed stands in the message of a failure."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import apsw
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.memory import crash_agent

from aios.config import Config, Home
from aios.errors import AccessDenied
from aios.kernel.kernel import open_kernel
from aios.sdk.memory import Memory
from aios.testing.disk import FaultyDisk

N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "4"))
N_IMAGES = 2 * N_CRASHES
FAIL_SHARE = 0.03
"""Of the moments before a change of the disk."""
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))


def test_after_kill_9_every_acknowledged_note_is_there_and_the_indexes_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    texts: dict[int, str] = {}
    roots: dict[int, int] = {}
    for number in range(N_CRASHES):
        command = [sys.executable, crash_agent.__file__, str(tmp_path), str(SEED + number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - our own program
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(draw.randrange(1, 60))]
            child.send_signal(signal.SIGKILL)
            lines += [line for line in child.stdout if line.endswith("\n")]
        for line in lines:
            follow(line, texts, roots)
        anyio.run(assert_in_order, tmp_path, texts, roots)
    with capsys.disabled():
        print(f" [{N_CRASHES} kills among notes, seed {SEED}: nothing lost]", end="")  # noqa: T201 - a bar of the project


def follow(line: str, texts: dict[int, str], roots: dict[int, int]) -> None:
    """Take in what was acknowledged: the texts of the notes, and the first note of the row of updates that each is in."""
    match line.split():
        case ["+", note, *words]:
            texts[int(note)] = " ".join(words)
            roots[int(note)] = int(note)
        case [">", old, new, *words]:
            texts[int(new)] = " ".join(words)
            roots[int(new)] = roots[int(old)]
        case [_, note]:
            texts.pop(int(note), None)


async def assert_in_order(home: Path, texts: dict[int, str], roots: dict[int, int]) -> None:
    """Every note is there as it was acknowledged, except for one row of each worker, which was just being forgotten."""
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        assert (await memory.check()).faults == (), f"seed {SEED}"
        kept = {note.id: note async for note in memory.notes(include_superseded=True)}
        missing = texts.keys() - kept.keys()
        rows = {roots[note] for note in missing}
        assert len(rows) <= crash_agent.N_WORKERS, f"lost with seed {SEED}: {missing}"
        for note in missing:
            del texts[note]
        for note, text in texts.items():
            assert kept[note].text == text, f"seed {SEED}"


def test_after_a_loss_of_power_every_acknowledged_note_is_there_and_the_indexes_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk drops, tears and reorders what was not synced; each image of it is a home to start from."""
    power = Power(tmp_path)
    anyio.run(power.run)
    power.disk.unregister()
    assert len(power.images) == N_IMAGES
    for image, lines in power.images:
        texts: dict[int, str] = {}
        roots: dict[int, int] = {}
        for line in lines:
            follow(line, texts, roots)
        anyio.run(assert_in_order, image, texts, roots)
    with capsys.disabled():
        print(f" [{N_IMAGES} losses of power among notes, seed {SEED}: nothing lost]", end="")  # noqa: T201 - a bar of the project


class Power:
    """Workers on a disk whose power fails at random moments: what would be there, and what was acknowledged before."""

    def __init__(self, folder: Path) -> None:
        self.images: list[tuple[Path, list[str]]] = []
        self.disk = FaultyDisk(f"notes-{SEED}", before=lambda *_: self._fail(), is_default=True)
        self._folder = folder
        self._draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
        self._lines: list[str] = []
        self._guard = threading.RLock()
        self._is_full = anyio.Event()
        self._is_on = False

    async def run(self) -> None:
        async with open_kernel(Config(), Home(self._folder / "home"), engines={}) as kernel:
            memory = Memory(kernel.init_gate())
            await memory.remember("the tables are there")
            self._is_on = True
            async with anyio.create_task_group() as tasks:
                for worker in range(crash_agent.N_WORKERS):
                    draw = random.Random(f"{SEED} {worker}")  # noqa: S311 - repeatable on purpose
                    tasks.start_soon(crash_agent.work, memory, draw, self._say)
                await self._is_full.wait()
                tasks.cancel_scope.cancel()

    def _say(self, *words: object) -> None:
        self._lines.append(" ".join(map(str, words)))
        if not self._is_on:
            self._is_full.set()

    def _fail(self) -> None:
        """Perhaps now, in whatever thread writes."""
        with self._guard:
            if not self._is_on or self._draw.random() > FAIL_SHARE:
                return
            image, lines = self._folder / f"image-{len(self.images)}", list(self._lines)
            self.disk.power_fails(self._folder / "home", into=image, seed=SEED + len(self.images))
            self.images.append((image, lines))
            self._is_on = len(self.images) < N_IMAGES


@pytest.mark.anyio
async def test_a_contradiction_is_found_and_named(booted: OpenKernel) -> None:
    async with booted() as kernel:
        memory, guest = Memory(kernel.init_gate()), Memory(kernel.gate(kernel.admit("eve")[0].pid))
        old = await memory.remember("the boat is red")
        new = await memory.update(old, "the boat is blue")
        other = await memory.remember("the sail is white")
        checked = await memory.check()
        assert (checked.n_notes, checked.faults) == (3, ())
        with pytest.raises(AccessDenied):
            await guest.check()
        spoilt = (
            ("UPDATE memory_notes SET superseded_by = NULL WHERE id = ?", old, "took the place"),
            ("UPDATE memory_counts SET n_notes = n_notes + ?", 7, "counted"),
            ("DELETE FROM memory_vectors WHERE note = ?", other, "meanings"),
            (
                "INSERT INTO memory_words (memory_words, rowid, text) VALUES ('delete', ?, 'the boat is blue')",
                new,
                "words",
            ),
        )

        def spoil(connection: apsw.Connection) -> None:
            for sql, value, _ in spoilt:
                connection.execute(sql, (value,))

        await kernel.db.write(spoil)
        faults = " ".join((await memory.check()).faults)
        assert all(word in faults for *_, word in spoilt), faults
