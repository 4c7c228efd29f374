"""Commands in plain words, carried out by a whole kernel whose model says what a script says."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aios.abi.storage import Put
from aios.bench.plain_commands import OPEN, TRIED, UNSEEN, count_right, write_files
from aios.config import Config, EngineConfig, Home, MemoryConfig
from aios.configload import load
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import Conflict, InvalidCall
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.client import Client
from aios.sdk.filecommand import Outcome
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def saying(home: Path, **step: str) -> AsyncIterator[tuple[Kernel, Files]]:
    """A kernel whose model chooses this step whenever it is asked, and the files of the agent ann in it."""
    engine = ScriptedEngine(script=Script(answer=lambda _: json.dumps(step)))
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
    async with saying(tmp_path) as (_, ann):
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
    async with saying(tmp_path) as (_, ann):
        outcome = await ann.command("delete the draft")
        assert set(outcome.plan.steps[0].candidates) == {
            "/agents/ann/draft-1.md",
            "/agents/ann/draft-2.md",
        }
        assert (outcome.done, outcome.is_done) == ((), False)
        assert "say which" in outcome.fault
        assert "draft-1.md" in await names(ann)


async def test_all_means_all_and_a_deletion_can_be_undone(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        outcome = await ann.command("delete all drafts")
        assert outcome.done == (
            "/agents/ann/draft-1.md: deleted",
            "/agents/ann/draft-2.md: deleted",
        )
        await ann.rollback(transaction=outcome.versions[0].transaction)
        assert "draft-2.md" in await names(ann)


async def test_so_many_that_some_may_be_missing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.sdk.filelookup.N_CANDIDATES", 2)
    async with saying(tmp_path) as (_, ann):
        with pytest.raises(InvalidCall, match="2 files or more are 'all drafts'"):
            await ann.plan("delete all drafts")


@pytest.mark.parametrize(
    "words", ["all files in trips", "everything in /agents/ann/trips", "all under the trips folder"]
)
async def test_all_files_of_a_folder_are_those_that_it_lists(tmp_path: Path, words: str) -> None:
    async with saying(tmp_path) as (_, ann):
        paths = [f"trips/{name}" for name in ("2026/b.json", "c.py", "unlike.txt")]
        await ann.edit([Put(path, b"return") for path in paths])
        plan = await ann.plan(f"move {words} to archive")
        assert sorted(plan.steps[0].paths) == sorted(
            f"/agents/ann/{path}" for path in (*paths, "trips/travel-notes.md")
        )


async def test_all_files_of_a_folder_with_too_many_are_not_a_part_of_them(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        for begin in (0, 600):
            await ann.edit([Put(f"many/{i}", b"x") for i in range(begin, begin + 600)])
        with pytest.raises(InvalidCall, match="more than 1000 files"):
            await ann.plan("delete all files in many")


@pytest.mark.parametrize(
    "words",
    [
        "me from the travel notes",
        "everything from the travel notes",
        "everything about me in travel-notes.md",
        "this from draft-1",
        "all in draft-1.md",
        "from trips",
        "the file in trips",
    ],
)
async def test_what_is_in_a_file_is_not_the_file(tmp_path: Path, words: str) -> None:
    async with saying(tmp_path) as (_, ann):
        plan = await ann.plan(f"delete {words}")
        assert (plan.is_ready, plan.steps[0].paths) == (False, ())


async def test_what_is_in_a_folder_is_all_of_it(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        for words in ("the files in trips", "everything below the trips folder"):
            plan = await ann.plan(f"delete {words}")
            assert plan.is_ready
        assert (await ann.plan("delete all of draft-1")).steps[0].paths == (
            "/agents/ann/draft-1.md",
        )


async def test_a_copied_folder_tells_which_files_it_takes_the_place_of(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        await ann.edit([Put("old/trips/travel-notes.md", b"old"), Put("old/trips/b.md", b"old")])
        plan = await ann.plan("copy old/trips to /agents/ann")
        assert plan.steps[0].replaces == ("/agents/ann/trips/travel-notes.md",)


@pytest.mark.parametrize(
    "command",
    [
        "put 'buy milk' in draft-1",
        "save 'buy milk' to draft-1.md",
        "save draft-2.md as draft-1.md",
        "append draft-1 to draft-2",
    ],
)
async def test_a_text_that_may_be_another_is_looked_at_first(tmp_path: Path, command: str) -> None:
    async with saying(tmp_path) as (_, ann):
        with pytest.raises(Conflict, match="a guess"):
            await ann.command(command)
        outcome = await ann.command("append 'draft-1' to draft-2")
        assert outcome.is_done, "in quotation marks it is the text"


async def test_a_text_that_is_appended_begins_a_line(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        for text in ("eggs", "milk"):
            await ann.command(f"append '{text}' to draft-1.md")
        assert await ann.read_text("draft-1.md") == "one\neggs\nmilk\n"


@pytest.mark.parametrize("place", ["up", "there", "away"])
async def test_a_word_that_names_no_place_is_none(tmp_path: Path, place: str) -> None:
    async with saying(tmp_path) as (_, ann):
        with pytest.raises(InvalidCall, match=f"nothing is called `{place}`"):
            await ann.plan(f"move draft-1.md {place}")


async def test_what_cannot_be_undone_needs_consent_and_an_agents_the_owners_too(
    tmp_path: Path,
) -> None:
    async with saying(tmp_path) as (kernel, ann):
        with pytest.raises(Conflict, match="cannot be undone"):
            await ann.command("purge draft-1.md")
        assert "draft-1.md" in await names(ann)
        refused = await answered(kernel, ann, "deny")
        assert (refused.done, "draft-1.md" in await names(ann)) == ((), True)
        assert "denied" in refused.fault


async def test_the_owner_allows_a_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(tmp_path) as (kernel, ann):
        outcome = await answered(kernel, ann, "once")
        assert outcome.done == ("purged /agents/ann/draft-1.md: 2 versions are gone",)
        assert "draft-1.md" not in await names(ann)
        monkeypatch.setattr("aios.kernel.storage.purging.MAX_PURGED", 1)
        await ann.write("draft-1.md", "anew")
        assert "denied" in (await answered(kernel, ann, "once", "deny")).fault


async def answered(kernel: Kernel, files: Files, *answers: str) -> Outcome:
    """What came of a purge that the owner was asked about."""
    owner, outcomes = Client(kernel.init_gate()), list[Outcome]()

    async def purge() -> None:
        outcomes.append(await files.command("purge draft-1.md", consents=True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(purge)
        for answer in answers:
            while not (open_now := await owner.approvals.list()):
                await anyio.wait_all_tasks_blocked()
            await owner.approvals.answer(open_now[0].id, answer)
    return outcomes[0]


async def test_what_is_only_like_the_words_is_never_purged(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        like = await ann.plan("delete the thing with the train")
        assert like.steps[0].paths == ("/agents/ann/trips/travel-notes.md",)
        plan = await ann.plan("purge the thing with the train")
        assert plan.steps[0].candidates == like.steps[0].paths
        assert not plan.is_ready
        assert not (await ann.plan("delete train.md")).is_ready


async def test_rights_are_checked_before_and_all_edits_happen_or_none(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        outcome = await ann.command("delete draft-1.md and write hello to /agents/bob/x.md")
        assert outcome.done == ()
        assert "may not change /agents/bob/x.md" in outcome.fault
        assert "draft-1.md" in await names(ann)


async def test_what_failed_in_between_is_not_claimed(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        plan = await ann.plan("move draft-1.md to archive")
        await ann.delete("draft-1.md")
        outcome = await ann.carry_out(plan)
        assert outcome.done == ()
        assert outcome.fault.startswith("not_found")
        assert not outcome.is_done


BELONGS = "the travel notes belong in the archive"
"""No verb that is known: a model says what is meant."""


async def test_a_model_chooses_where_the_words_leave_a_choice(tmp_path: Path) -> None:
    notes = "/agents/ann/trips/travel-notes.md"
    async with saying(tmp_path, do="move", source=notes, target="the archive") as (_, ann):
        with pytest.raises(Conflict, match="a guess: a model made it"):
            await ann.command(BELONGS)
        assert "trips/travel-notes.md" in await names(ann), "nobody has seen that plan"
        outcome = await ann.command(BELONGS, consents=True)
        assert outcome.plan.steps[0].paths == (notes,)
        assert "archive/travel-notes.md" in await names(ann)


@pytest.mark.parametrize(
    "step",
    [
        {"do": "delete", "source": "/agents/ann/trips/travel-notes.md"},
        {"do": "move", "source": "/agents/ann/draft-1.md", "target": "the archive"},
        {"do": "move", "source": "/agents/ann/trips/travel-notes.md", "target": "/shared"},
    ],
)
async def test_a_plan_that_names_what_nobody_said_is_refused(
    tmp_path: Path, step: dict[str, str]
) -> None:
    async with saying(tmp_path, **step) as (_, ann):
        with pytest.raises(InvalidCall, match="does not say"):
            await ann.command(BELONGS)
        assert len(await names(ann)) == 3


async def test_lists_folders_and_what_was_named_before_are_understood(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        await ann.command("copy draft-1.md and draft-2.md to trips")
        assert "trips/draft-1.md" in await names(ann)
        outcome = await ann.command("copy draft-2.md to trips and then delete it")
        assert outcome.is_done
        assert "draft-2.md" not in await names(ann)
        await ann.command("rename the trips folder to journeys")
        await ann.write("v1.2/notes.md", "x")
        dotted = await ann.plan("rename v1.2 to v2")
        assert dotted.steps[0].target == "/agents/ann/v2"
        assert "journeys/draft-2.md" in await names(ann)
        for command in ("move draft-1.md", "delete", ", ".join(["delete a.md"] * 9)):
            with pytest.raises(InvalidCall):
                await ann.plan(command)


async def test_what_is_not_to_be_done_is_not_done(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        before = await names(ann)
        for command in (
            "do not delete draft-1.md",
            "copy draft-1.md to trips, but never delete draft-2.md",
            "delete all drafts except draft-1.md",
            "how do I purge draft-1.md?",
        ):
            with pytest.raises(InvalidCall, match="what is not to be done"):
                await ann.command(command, consents=True)
        assert await names(ann) == before
        assert (await ann.command("find notes that do not mention Paris")).found


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("it is forbidden to delete draft-1.md", "`it is forbidden to` stands before"),
        ("nicht delete draft-1.md", "`nicht` stands before"),
        ("when I say so, delete draft-1.md", "stands before"),
        ("before you purge draft-1.md, copy it to trips", "stands before"),
        ("move draft-1.md to trips and keep a copy", "nothing is called `trips and keep a copy`"),
        ("move draft-1.md to /agents/ann/trips tomorrow", "nothing is called"),
        ("write 'x' to draft-1.md and then tell me", "nothing is called"),
        ("append 'x' to it", "nothing is called `it`"),
    ],
)
async def test_words_that_may_change_what_is_meant_are_not_passed_over(
    tmp_path: Path, command: str, why: str
) -> None:
    async with saying(tmp_path) as (_, ann):
        before = await names(ann)
        with pytest.raises(InvalidCall, match=why):
            await ann.command(command, consents=True)
        assert await names(ann) == before


async def test_it_means_no_file_unless_one_was_named_before(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        await ann.write("weather.md", "It rained.")
        assert "no file is 'it'" in (await ann.command("delete it")).fault


async def test_what_is_meant_by_what_is_in_it_is_done_only_if_somebody_has_seen_it(
    tmp_path: Path,
) -> None:
    async with saying(tmp_path) as (_, ann):
        command = "delete the thing with the train"
        with pytest.raises(Conflict, match="meant by what is in it") as refused:
            await ann.command(command)
        assert "--yes" in refused.value.hint
        assert (await ann.command(command, dry_run=True)).plan.is_guess
        assert (await ann.command(command, consents=True)).is_done
        assert not (await ann.plan("find the train")).is_guess


async def test_words_that_may_be_no_text_are_written_only_after_a_look(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        for command in (
            "write a poem about rain to draft-1.md",
            "append the content of draft-2.md to draft-1.md",
        ):
            with pytest.raises(Conflict, match="no quotation marks"):
                await ann.command(command)
        assert await ann.read_text("draft-1.md") == "one"
        for command in (
            "append a line to draft-1.md",
            "write a poem to poem.md",
            "write 'see a.md' to draft-1.md",
        ):
            assert (await ann.command(command)).is_done
        assert await ann.read_text("draft-1.md") == "see a.md"


async def test_a_name_that_is_only_like_a_files_is_not_taken_for_it(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        await ann.write("plan-b.txt", "kept")
        for command in ("delete plan.txt", "move plan.txt to trips"):
            outcome = await ann.command(command, consents=True)
            assert "'plan.txt' could be /agents/ann/plan-b.txt" in outcome.fault
        with pytest.raises(InvalidCall, match="`plan` could be"):
            await ann.command("write 'x' to plan")
        await ann.command("write 'x' to plan.txt")
        assert await ann.read_text("plan.txt") == "x"
        assert await ann.read_text("plan-b.txt") == "kept"
        with pytest.raises(InvalidCall, match="2 files cannot be called 'old'"):
            await ann.command("rename all drafts to old")


async def test_a_name_in_quotation_marks_is_meant_whole(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        await ann.write("plan.txt", "short")
        for command in ("delete 'my plan.txt'", "purge `my plan.txt`", "move 'my plan.txt' to x"):
            refused = await ann.command(command, consents=True)
            assert refused.plan.steps[0].candidates == ("/agents/ann/plan.txt",), command
        await ann.command("write 'long' to 'my plan.txt'")
        assert await ann.read("my plan.txt") == b"long"
        await ann.command("append 'er' to 'my plan.txt'")
        purged = await ann.plan("purge 'my plan.txt'")
        assert purged.steps[0].paths == ("/agents/ann/my plan.txt",)
        assert (await ann.command("delete my plan.txt")).is_done
        assert await ann.read("plan.txt") == b"short"


async def test_each_name_of_a_list_is_meant_and_none_that_quotation_marks_hold(
    tmp_path: Path,
) -> None:
    async with saying(tmp_path) as (_, ann):
        for name in ("a.md", "b.md", "salt.md", "pepper.md", "report.md", "report 2026.md"):
            await ann.write(name, "x")
        for command, n_files in (
            ("delete a.md and b.md", 2),
            ("delete 'report.md', 'report 2026.md'", 2),
            ("delete report.md and report 2026.md", 2),
            ("delete salt and pepper.md", 2),
            ("delete 'salt and pepper.md'", 0),
            ("delete report.md report 2026.md", 0),
            ("find 'my a.md', then delete it", 0),
        ):
            plan = await ann.plan(command)
            assert len(plan.steps[-1].paths) == n_files, command
        await ann.write("salt and pepper.md", "x")
        assert len((await ann.plan("delete salt and pepper.md")).steps[0].candidates) == 3
        quoted = await ann.plan("delete 'salt and pepper.md'")
        assert quoted.steps[0].paths == ("/agents/ann/salt and pepper.md",)
        await ann.write("old/archive/x", "x")
        moved = await ann.plan("move a.md to 'my archive'")
        assert moved.steps[0].target == "/agents/ann/my archive/a.md"


async def test_what_is_called_so_is_purged_and_nothing_with_a_name_like_it(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        await ann.write("sketches/a.md", "x")
        await ann.write("trips/sketch.md", "x")
        folder = await ann.plan("purge the sketches")
        assert folder.steps[0].paths == ("/agents/ann/sketches",)
        like = await ann.plan("purge the note of travels")
        assert like.steps[0].candidates == ("/agents/ann/trips/travel-notes.md",)
        with pytest.raises(InvalidCall, match="do not say where"):
            await ann.command("""write "say "hi"" to draft-1.md""", consents=True)
        for command in ("purge *.md", "move trips/* to x"):
            with pytest.raises(InvalidCall, match="is a pattern"):
                await ann.command(command, consents=True)


async def test_what_takes_the_place_of_a_file_says_so_and_what_is_made_does_not(
    tmp_path: Path,
) -> None:
    async with saying(tmp_path) as (_, ann):
        for command in ("write 'x' to draft-1.md", "copy draft-2.md to draft-1.md"):
            (step,) = (await ann.plan(command)).steps
            assert step.said().endswith(", in place of what is in /agents/ann/draft-1.md")
        for command in ("create draft-1.md with 'x'", "rename draft-2.md to draft-1.md"):
            outcome = await ann.command(command)
            assert "/agents/ann/draft-1.md is there already" in outcome.fault
        assert await ann.read_text("draft-1.md") == "one"
        await ann.command("create 'new list.md' with 'x'")
        assert "new list.md" in await names(ann)
        assert (await ann.plan("throw draft-1.md into trips")).steps[0].do == "move"


async def test_files_are_looked_for_and_written(tmp_path: Path) -> None:
    async with saying(tmp_path) as (_, ann):
        outcome = await ann.command("find train to Rome, append 'bring water' to travel notes")
        assert outcome.found == ("/agents/ann/trips/travel-notes.md",)
        assert (await ann.read_text("trips/travel-notes.md")).endswith("bring water\n")
        with pytest.raises(InvalidCall, match="characters"):
            await ann.command(" ")


async def test_plain_commands_are_planned_as_they_are_meant_and_no_model_is_asked(
    tmp_path: Path,
) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        await write_files(kernel.init_gate())
        assert await count_right(kernel.init_gate(), (*TRIED, *UNSEEN)) == (40, [])


@pytest.mark.model
async def test_the_default_model_chooses_among_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its plan may be a wrong one; it is always valid, it takes nothing away, and nothing is done before it is shown."""
    (tmp_path / "models").symlink_to(load().home.models)
    config = Config(engine=EngineConfig(n_slots=1), memory=MemoryConfig(embedder="none"))
    with anyio.fail_after(600):
        async with open_kernel(config, Home(tmp_path)) as kernel:
            gate = kernel.init_gate()
            await write_files(gate)
            n_right, wrong = await count_right(gate, OPEN)
            files = await Files(gate).list(is_deep=True)
    assert len(files) == 11
    assert not any("made no plan" in each or "does not say" in each for each in wrong)
    with capsys.disabled():
        print(f" [{n_right} of {len(OPEN)} open commands planned as they are meant]", end="")  # noqa: T201 - a figure of the project
