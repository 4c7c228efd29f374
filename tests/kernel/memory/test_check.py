"""What `aios fsck` says of notes; what crashes leave is in tests/bench/test_note_crashes.py."""

import apsw
import pytest
from tests.kernel.conftest import OpenKernel

from aios.errors import AccessDenied
from aios.sdk.memory import Memory


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
