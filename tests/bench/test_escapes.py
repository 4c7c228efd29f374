"""The `escapes` bench on a few programs; all of them run in tests/kernel/sandbox/test_escapes.py."""

import pytest
from tests.bench.measuring import measured

from aios.bench import escapes
from aios.bench.escape_programs import TEMPORARY_FILES, Payload
from aios.kernel.sandbox.probe import probe

pytestmark = pytest.mark.anyio

FEW = (
    Payload("reads the canary", "read(CANARY)"),
    Payload("says nothing but the truth", "print('here')"),
    Payload("gets out by a known gap", "escaped()", gap=TEMPORARY_FILES),
)
LOUD = Payload("gets out", "escaped('and says so')")


async def test_what_gets_out_is_counted_apart_from_what_is_known_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if any(probe(wall).wall.value != wall for wall in escapes.WALLS):
        pytest.skip("this machine lacks a wall")
    monkeypatch.setattr(escapes, "PAYLOADS", (*FEW, LOUD))
    rows = await measured(escapes.BENCH)
    figures = {name: row.value for name, row in rows.items()}
    assert figures == {"programs": 4, "bubblewrap": 2, "landlock": 1, "landlock-gaps": 1}
    assert not rows["bubblewrap"].ok


async def test_what_was_changed_outside_is_seen_there() -> None:
    quiet = Payload("writes outside", "open(OUT + '/canary', 'w').close()")
    assert await escapes.escape_of("none", quiet) == "the canary is another"
