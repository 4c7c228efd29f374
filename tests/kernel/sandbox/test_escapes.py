"""Hostile programs behind each wall, and what is looked at from outside: nothing was read, written, reached or left behind."""

from pathlib import Path

import pytest

from aios.bench.escape_programs import COUNTS, GAPS, PAYLOADS, Payload
from aios.bench.escapes import WALLS, escape_of
from aios.kernel.sandbox.probe import Wall, probe

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "concepts" / "sandbox.md"


@pytest.fixture(scope="module")
def walls() -> dict[str, Wall]:
    return {mode: probe(mode).wall for mode in WALLS}


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
@pytest.mark.parametrize("mode", WALLS)
async def test_nothing_escapes(walls: dict[str, Wall], mode: str, payload: Payload) -> None:
    if walls[mode].value != mode:
        pytest.skip(f"this machine has no {mode}")
    how = await escape_of(mode, payload)
    if mode == "bubblewrap" or not payload.gap:
        assert not how


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
@pytest.mark.parametrize("mode", WALLS)
async def test_nothing_is_inherited_on_the_loop_of_the_daemon_either(
    walls: dict[str, Wall], mode: str
) -> None:
    if walls[mode].value != mode:
        pytest.skip(f"this machine has no {mode}")
    (payload,) = (each for each in PAYLOADS if each.name == "inherits an open file")
    assert not await escape_of(mode, payload)


def test_there_are_enough_of_them() -> None:
    assert len(PAYLOADS) >= 60
    assert len({payload.name for payload in PAYLOADS}) == len(PAYLOADS)


async def test_the_page_lists_the_gaps_that_are_found_and_no_others(
    walls: dict[str, Wall],
) -> None:
    listed = PAGE.read_text().partition("It leaves open")[2].split("\n\n")[1].splitlines()
    assert [line.removeprefix("- ").rstrip(";.") for line in listed] == list(GAPS)
    assert {payload.gap for payload in PAYLOADS} == {*GAPS, ""}
    if walls["landlock"].value != "landlock":
        pytest.skip("this machine has no landlock")
    programs = [payload for payload in PAYLOADS if payload.gap]
    found = {payload.gap for payload in programs if await escape_of("landlock", payload)}
    assert found | {COUNTS} == set(GAPS), "a gap that is none is not to be listed"
