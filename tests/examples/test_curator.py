from pathlib import Path

import anyio
import msgspec
import pytest
from examples.curator import main as curator
from tests.sdk.serving import served

from aios.abi.budget import Limits
from aios.abi.types import Exit
from aios.engine.base import Job
from aios.engine.script import Script
from aios.sdk.client import Client, connect

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "curator"
CHOSEN = msgspec.json.encode({"keywords": ["sailing", "boats"], "related": [1, 99]}).decode()


async def run(client: Client, *args: str, budget: Limits | None = None) -> Exit:
    child = await client.spawn(EXAMPLE, *args, budget=budget)
    return (await client.wait(child.pid)).exit


def answer(_: Job) -> str:
    return CHOSEN


@pytest.mark.anyio
async def test_notes_get_tags_of_their_own_words_and_links_to_notes_near_them() -> None:
    with anyio.fail_after(60):
        async with (
            served(Script(answer=answer)) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
        ):
            memory = client.memory
            first = await memory.remember("sailing boats are red", scope="shared", tags=["sea"])
            await memory.remember("sailing boats need a wind", scope="shared")
            await memory.link(1, 2, is_on=False)
            shown = await run(client, "--dry-run")
            assert shown.result == "0 notes, 0 links", "a dry run writes nothing"
            assert (await memory.get(first)).note.superseded_by is None
            assert (await run(client)).result.startswith("2 notes, ")
            notes = [note async for note in memory.notes(scopes=["shared"])]
            assert [note.tags for note in notes] == [
                ("sea", "sailing", "boats", "curated"),
                ("sailing", "boats", "curated"),
            ]
            assert notes[0].id == first
            assert notes[0].origin.name == "init", "it stays the note of who wrote it"
            assert (await run(client)).result == "0 notes, 0 links", "each is looked at once"


@pytest.mark.anyio
async def test_it_ends_before_its_budget_does() -> None:
    with anyio.fail_after(60):
        async with (
            served(Script(answer=answer)) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
        ):
            for number in range(3):
                await client.memory.remember(f"sailing boats number {number}", scope="shared")
            end = await run(client, budget=Limits(completion_tokens=curator.ANSWER_TOKENS))
            assert end.status == 0
            assert "budget is used up" in end.result


def test_what_the_model_may_choose_is_bounded() -> None:
    assert curator.words_of("The sea, the SEA and a lighthouse of 1898") == ["lighthouse"]
    assert curator.options([], 3) == {"type": "array", "maxItems": 0}
    assert curator.options([4, 5], 3)["items"] == {"enum": [4, 5]}
