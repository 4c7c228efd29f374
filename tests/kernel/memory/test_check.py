"""`AIOS_TEST_CRASHES=1000` makes the loop long; the seed stands in the message of a failure."""

import os
import random
import signal
import subprocess
import sys
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

N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "4"))
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))


def test_after_kill_9_every_acknowledged_note_is_there_and_the_indexes_agree(
    tmp_path: Path,
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
