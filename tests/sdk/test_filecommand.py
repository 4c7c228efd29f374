"""Commands in plain words, carried out by a whole kernel whose model says what a script says."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aios.abi.storage import Put
from aios.config import Config, EngineConfig, Home, MemoryConfig
from aios.configload import load
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import Conflict, InvalidCall
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.client import Client
from aios.sdk.filecommand import Outcome
from aios.sdk.fileplan import MAX_STEPS
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def saying(home: Path, *steps: object) -> AsyncIterator[tuple[Kernel, Files]]:
    """A kernel whose model plans these steps, and the files of the agent ann in it."""
    reply = json.dumps({"steps": steps})
    engine = ScriptedEngine(script=Script(answer=lambda _: reply))
    config = Config(memory=MemoryConfig(embedder="none"))

    with anyio.fail_after(120):
        async with open_kernel(config, Home(home), engines={"local": engine}) as kernel:
            ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
            await ann.edit([
                Put("trips/travel-notes.md", b"The train to Rome leaves at nine."),
                Put("draft-1.md", b"one"),
                Put("draft-2.md", b"two"),
            ])  # fmt: skip
            yield kernel, ann


async def names(files: Files) -> list[str]:
    return [each.path.removeprefix("/agents/ann/") for each in await files.list(is_deep=True)]


async def test_a_command_is_planned_carried_out_and_told(tmp_path: Path) -> None:
    step = {"do": "move", "source": "the travel notes", "target": "archive"}
    async with saying(tmp_path, step) as (_, ann):
        plan = await ann.plan("move the travel notes to archive")
        assert plan.is_ready
        assert plan.steps[0].why == "by name"
        assert plan.steps[0].said() == (
            "move /agents/ann/trips/travel-notes.md to /agents/ann/archive/travel-notes.md"
        )
        dry = await ann.command("move the travel notes to archive", dry_run=True)
        assert dry.done == ()
        assert "trips/travel-notes.md" in await names(ann), "planning changes nothing"
        outcome = await ann.command("move the travel notes to archive")
        assert outcome.is_done
        assert "/agents/ann/archive/travel-notes.md: version 1, 33 bytes" in outcome.done
        assert await names(ann) == ["archive/travel-notes.md", "draft-1.md", "draft-2.md"]
        (newest, *_) = await ann.versions("archive/travel-notes.md")
        assert newest.message == "move the travel notes to archive"


async def test_what_is_ambiguous_is_not_done_and_the_candidates_are_listed(tmp_path: Path) -> None:
    async with saying(tmp_path, {"do": "delete", "source": "the draft"}) as (_, ann):
        outcome = await ann.command("delete the draft")
        assert set(outcome.plan.steps[0].candidates) == {
            "/agents/ann/draft-1.md",
            "/agents/ann/draft-2.md",
        }
        assert (outcome.done, outcome.is_done) == ((), False)
        assert "say which" in outcome.fault
        assert "draft-1.md" in await names(ann)


async def test_all_means_all_and_a_deletion_can_be_undone(tmp_path: Path) -> None:
    async with saying(tmp_path, {"do": "delete", "source": "all drafts"}) as (_, ann):
        outcome = await ann.command("delete all drafts")
        assert outcome.done == (
            "/agents/ann/draft-1.md: deleted",
            "/agents/ann/draft-2.md: deleted",
        )
        await ann.rollback(transaction=outcome.versions[0].transaction)
        assert "draft-2.md" in await names(ann)


async def test_what_cannot_be_undone_needs_consent_and_an_agents_the_owners_too(
    tmp_path: Path,
) -> None:
    async with saying(tmp_path, {"do": "purge", "source": "draft-1.md"}) as (kernel, ann):
        with pytest.raises(Conflict, match="cannot be undone"):
            await ann.command("purge draft-1.md")
        assert "draft-1.md" in await names(ann)
        refused = await answered(kernel, ann, "deny")
        assert (refused.done, "draft-1.md" in await names(ann)) == ((), True)
        assert "denied" in refused.fault


async def test_what_the_owner_allows_is_purged(tmp_path: Path) -> None:
    async with saying(tmp_path, {"do": "purge", "source": "draft-1.md"}) as (kernel, ann):
        outcome = await answered(kernel, ann, "once")
        assert outcome.done == ("purged /agents/ann/draft-1.md: 2 versions are gone",)
        assert "draft-1.md" not in await names(ann)


async def answered(kernel: Kernel, files: Files, answer: str) -> Outcome:
    """What came of a purge that the owner was asked about."""
    owner, outcomes = Client(kernel.init_gate()), list[Outcome]()

    async def purge() -> None:
        outcomes.append(await files.command("purge draft-1.md", consents=True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(purge)
        while not (open_now := await owner.approvals.list()):
            await anyio.wait_all_tasks_blocked()
        await owner.approvals.answer(open_now[0].id, answer)
    return outcomes[0]


async def test_rights_are_checked_before_and_all_edits_happen_or_none(tmp_path: Path) -> None:
    steps = [
        {"do": "delete", "source": "draft-1.md"},
        {"do": "write", "target": "/agents/bob/x.md", "text": "hello"},
    ]
    async with saying(tmp_path, *steps) as (_, ann):
        outcome = await ann.command("delete draft-1.md and write hello to /agents/bob/x.md")
        assert outcome.done == ()
        assert "may not change /agents/bob/x.md" in outcome.fault
        assert "draft-1.md" in await names(ann)


async def test_what_failed_in_between_is_not_claimed(tmp_path: Path) -> None:
    step = {"do": "move", "source": "draft-1.md", "target": "archive"}
    async with saying(tmp_path, step) as (_, ann):
        plan = await ann.plan("move draft-1.md to archive")
        await ann.delete("draft-1.md")
        outcome = await ann.carry_out(plan)
        assert outcome.done == ()
        assert outcome.fault.startswith("not_found")
        assert not outcome.is_done


async def test_a_plan_that_names_what_nobody_said_is_refused(tmp_path: Path) -> None:
    async with saying(tmp_path, {"do": "delete", "source": "/agents/ann"}) as (_, ann):
        with pytest.raises(InvalidCall, match="does not say"):
            await ann.command("delete the draft")
        assert len(await names(ann)) == 3


async def test_files_are_looked_for_and_written(tmp_path: Path) -> None:
    steps = [
        {"do": "find", "source": "train to Rome"},
        {"do": "append", "target": "travel notes", "text": "bring water"},
    ]
    async with saying(tmp_path, *steps) as (_, ann):
        outcome = await ann.command("find train to Rome, append 'bring water' to travel notes")
        assert outcome.found == ("/agents/ann/trips/travel-notes.md",)
        assert (await ann.read_text("trips/travel-notes.md")).endswith("bring water\n")
        with pytest.raises(InvalidCall, match="characters"):
            await ann.command(" ")


@pytest.mark.model
async def test_the_default_model_makes_a_plan_in_the_words_of_the_command(tmp_path: Path) -> None:
    """The plan may be a wrong one; it is always valid, and nothing is done before it is shown."""
    (tmp_path / "models").symlink_to(load().home.models)
    config = Config(engine=EngineConfig(n_slots=1), memory=MemoryConfig(embedder="none"))
    with anyio.fail_after(600):
        async with open_kernel(config, Home(tmp_path)) as kernel:
            files = Files(kernel.init_gate())
            await files.write("/shared/travel-notes.md", "The train to Rome leaves at nine.")
            plan = await files.plan("move the travel notes to archive")
            assert 1 <= len(plan.steps) <= MAX_STEPS
            assert all(step.words in plan.command for step in plan.steps)
            assert [each.path for each in await files.list("/shared")] == [
                "/shared/travel-notes.md"
            ]
