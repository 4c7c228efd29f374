"""Kernels that are killed, or lose their power, among changes of notes: is what they acknowledged there, and do the indexes agree?

The programs that are killed are `crash_notes.py`. Every function returns what was found wrong, which should be nothing.
"""

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import anyio

from aios.bench import crash_notes
from aios.config import Config, Home
from aios.kernel.kernel import open_kernel
from aios.sdk.memory import Memory
from aios.testing.disk import FaultyDisk

FAIL_SHARE = 0.03
"""Of the moments before a change of the disk, those at which the power fails."""


class Acknowledged:
    """The notes that are to be there by what workers said: their texts, and the first of the row of updates that each is in."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.roots: dict[int, int] = {}

    def follow(self, lines: Iterable[str]) -> None:
        """Take in what was said."""
        for line in lines:
            match line.split():
                case ["+", note, *words]:
                    self.texts[int(note)] = " ".join(words)
                    self.roots[int(note)] = int(note)
                case [">", old, new, *words]:
                    self.texts[int(new)] = " ".join(words)
                    self.roots[int(new)] = self.roots[int(old)]
                case [_, note]:
                    self.texts.pop(int(note), None)

    def look(self, home: Path) -> list[str]:
        """What is wrong in a home."""
        return anyio.run(self._look, home)

    async def _look(self, home: Path) -> list[str]:
        """Every note is there as it was acknowledged, except for one row of each worker, which was just being forgotten."""
        async with open_kernel(Config(), Home(home), engines={}) as kernel:
            memory = Memory(kernel.init_gate())
            faults = list((await memory.check()).faults)
            kept = {note.id: note async for note in memory.notes(include_superseded=True)}
        missing = self.texts.keys() - kept.keys()
        if len({self.roots[note] for note in missing}) > crash_notes.N_WORKERS:
            faults.append(f"lost: {sorted(missing)}")
        for note in missing:
            del self.texts[note]
        faults += [
            f"note {note} says {kept[note].text!r}, not {text!r}"
            for note, text in self.texts.items()
            if kept[note].text != text
        ]
        return faults


def kills(folder: Path, n: int, seed: int) -> list[str]:
    """Kill a kernel `n` times, and look after each."""
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    acknowledged = Acknowledged()
    faults = []
    for number in range(n):
        command = [sys.executable, crash_notes.__file__, str(folder), str(seed + number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - our own program
            assert child.stdout is not None
            n_lines = draw.randrange(1, 60)
            lines = [child.stdout.readline() for _ in range(n_lines)]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout
        if not lines[n_lines - 1]:
            faults.append(f"kill {number}: the kernel had ended before")
        acknowledged.follow(line for line in lines if line.endswith("\n"))
        faults += [f"kill {number}: {each}" for each in acknowledged.look(folder)]
    return faults


def losses(folder: Path, n: int, seed: int) -> list[str]:
    """Let the power fail `n` times; the disk drops, tears and reorders what was not synced, and each image of it is a home to start from."""
    power = _Power(folder, n, seed)
    anyio.run(power.run)
    power.disk.unregister()
    faults = [] if len(power.images) == n else [f"the power failed {len(power.images)} times"]
    for number, (image, lines) in enumerate(power.images):
        acknowledged = Acknowledged()
        acknowledged.follow(lines)
        faults += [f"loss {number}: {each}" for each in acknowledged.look(image)]
    return faults


class _Power:
    """Workers on a disk whose power fails at random moments: what would be there, and what was acknowledged before."""

    def __init__(self, folder: Path, n: int, seed: int) -> None:
        self.images: list[tuple[Path, list[str]]] = []
        self.disk = FaultyDisk(f"notes-{seed}", before=lambda *_: self._fail(), is_default=True)
        self._folder, self._n, self._seed = folder, n, seed
        self._draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._lines: list[str] = []
        self._guard = threading.RLock()
        self._is_full = anyio.Event()
        self._is_on = False

    async def run(self) -> None:
        """Work until the power has failed often enough."""
        async with open_kernel(Config(), Home(self._folder / "home"), engines={}) as kernel:
            memory = Memory(kernel.init_gate())
            await memory.remember("the tables are there")
            self._is_on = True
            async with anyio.create_task_group() as tasks:
                for worker in range(crash_notes.N_WORKERS):
                    draw = random.Random(f"{self._seed} {worker}")  # noqa: S311 - repeatable on purpose
                    tasks.start_soon(crash_notes.work, memory, draw, self._say)
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
            self.disk.power_fails(
                self._folder / "home", into=image, seed=self._seed + len(self.images)
            )
            self.images.append((image, lines))
            self._is_on = len(self.images) < self._n
