"""The calls that find files, in whole kernels."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.conftest import UNASKED
from tests.kernel.retrieval.documents import docx, many_laughs, pdf

from aios.abi.retrieval import FileHit, IndexInfo
from aios.abi.storage import Delete, Move, Put
from aios.config import Config, Home, MemoryConfig, StorageConfig
from aios.errors import AccessDenied, AiosError, InvalidCall, NotFound, Unsupported
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.retrieval import retriever
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio

NONE = Config(memory=MemoryConfig(embedder="none"), access=UNASKED)


class StillClock:
    """The same moment for ever, so that ages do not differ between two kernels."""

    def now_s(self) -> float:
        return 0.0

    def unix_s(self) -> float:
        return 1_700_000_000.0


@asynccontextmanager
async def opened(home: Path, config: Config = NONE) -> AsyncIterator[Kernel]:
    with anyio.fail_after(120):
        async with open_kernel(config, Home(home), engines={}, clock=StillClock()) as kernel:
            yield kernel
            kernel.check_invariants()


def agent(kernel: Kernel, name: str) -> Files:
    async def idle(_: LocalGate) -> None:
        await anyio.sleep_forever()

    return Files(kernel.gate(kernel.spawn_task(name, idle)))


async def paths(files: Files, query: str, *keywords: str, under: str = "") -> list[str]:
    found = await files.retrieve(query, 50, keywords, under=under, is_waiting=True)
    return [hit.path for hit in found.hits]


async def test_a_hit_names_file_version_lines_and_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        await ann.write("trip.md", "old\n")
        await ann.write("trip.md", "\n\nThe train to Rome\nleaves at nine.\n")
        await ann.write("other.md", "Nothing of that.\n")
        found = await ann.retrieve("when does the train leave?", is_waiting=True)
        (hit,) = found.hits
        assert (hit.path, hit.version) == ("/agents/ann/trip.md", 2)
        assert (hit.first_line, hit.last_line) == (3, 4)
        assert hit.text == "The train to Rome\nleaves at nine."
        assert hit.why == ("words: train, leave",)
        assert (found.n_files, found.n_pending, found.embedder) == (2, 0, "")


async def test_every_kind_of_file_is_found_and_hostile_ones_by_their_names(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        contents = {
            "a.txt": b"zebra",
            "b.md": b"# zebra",
            "c.html": b"<p>zebra</p>",
            "d.json": b'{"animal": "zebra"}',
            "e.csv": b"animal\nzebra\n",
            "f.py": b"def zebra(): ...",
            "g.pdf": pdf("zebra"),
            "h.docx": docx("zebra"),
        }
        hostile = {"zebra-laughs.docx": many_laughs(), "zebra.bin": b"\0\1", "zebra.pdf": b"%PDF-"}
        await ann.edit([Put(path, data) for path, data in (contents | hostile).items()])
        found = await paths(ann, "zebra")
        assert {path.rpartition("/")[2] for path in found} == set(contents) | set(hostile)
        info = await ann.index(is_waiting=True)
        assert (info.n_files, info.n_text_files) == (len(contents) + len(hostile), len(contents))
        assert {each.path.rpartition("/")[2] for each in info.problems} == set(hostile)
        of_type = await ann.retrieve("zebra", type="docx")
        assert {hit.path for hit in of_type.hits} == {
            "/agents/ann/h.docx",
            "/agents/ann/zebra-laughs.docx",
        }


async def test_changed_moved_and_deleted_files_follow(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        await ann.write("a/one.md", "the first fox")
        assert await paths(ann, "fox") == ["/agents/ann/a/one.md"]
        await ann.move("a", "b")
        assert await paths(ann, "fox") == ["/agents/ann/b/one.md"]
        await ann.write("b/one.md", "a badger")
        assert await paths(ann, "fox") == []
        assert await paths(ann, "badger") == ["/agents/ann/b/one.md"]
        await ann.delete("b/one.md")
        assert await paths(ann, "badger") == []
        await ann.rollback("b/one.md", version=1)
        assert await paths(ann, "fox") == ["/agents/ann/b/one.md"]


@pytest.mark.parametrize("swept_paths", [1, 3, 5_000])
async def test_what_was_deleted_and_purged_at_once_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept_paths: int
) -> None:
    monkeypatch.setattr("aios.kernel.retrieval.indexer.SWEPT_PATHS", swept_paths)
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        for name in ("a", "b", "y", "z"):
            await ann.write(f"{name}.md", "a badger")
        await ann.write("secret.md", "the fox")
        assert await paths(ann, "fox")
        await ann.delete("secret.md")
        await Files(kernel.init_gate()).purge("/agents/ann/secret.md", keep=0)
        assert await paths(ann, "fox") == []
        assert (await ann.index(is_waiting=True)).n_files == 4


async def test_a_file_with_many_passages_hides_no_name(tmp_path: Path) -> None:
    """Commands in plain words take a name for clear when one file has it."""
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        piece = f"The draft is a draft of {'many words ' * 150}.\n\n"
        await ann.edit([
            Put("draft-big.md", (piece * 1_100).encode()),
            Put("sub/drafts.md", b"x"),
            *(Put(f"draft-{i}.md", b"x") for i in range(1, 8)),
        ])  # fmt: skip
        found = await paths(ann, "the drafts")
        assert found[0] == "/agents/ann/draft-big.md"
        assert len(found) == 9
        assert (await ann.plan("delete drafts")).steps[0].paths == ("/agents/ann/sub/drafts.md",)
        assert len((await ann.plan("delete all drafts")).steps[0].paths) == 9


async def test_keywords_must_all_be_there_and_since_and_under_narrow(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        await ann.edit([
            Put("x/red-fox.md", b"it jumps high"),
            Put("x/fox.md", b"a red animal"),
            Put("y/fox.md", b"a brown animal"),
        ])  # fmt: skip
        assert set(await paths(ann, "", "red", "fox")) == {
            "/agents/ann/x/red-fox.md",
            "/agents/ann/x/fox.md",
        }
        assert await paths(ann, "fox", "brown animal") == ["/agents/ann/y/fox.md"]
        assert await paths(ann, "fox", under="y") == ["/agents/ann/y/fox.md"]
        assert not (await ann.retrieve("fox", since_unix_s=StillClock().unix_s())).hits
        assert (await ann.retrieve("fox", since_unix_s=0.0)).hits
        with pytest.raises(InvalidCall, match="query or keywords"):
            await ann.retrieve("  ")


async def test_files_are_grouped_and_joined(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        await ann.edit([
            Put("q/rome.md", b"When does the train to Rome leave?"),
            Put("q/cake.txt", b"How long is the cake in the oven?"),
            Put("a/travel.md", b"The train to Rome leaves at nine."),
            Put("a/kitchen.md", b"The cake is in the oven for an hour."),
        ])  # fmt: skip
        groups = (await ann.group_by("folder", is_waiting=True)).groups
        assert [(each.key, each.n_files) for each in groups] == [
            ("/agents/ann/a", 2),
            ("/agents/ann/q", 2),
        ]
        assert {each.key: each.n_files for each in (await ann.group_by("type")).groups} == {
            "markdown": 3,
            "text": 1,
        }
        (one,) = (await ann.group_by("author", "oven")).groups
        assert (one.key, one.n_files) == ("/agents/ann", 2)
        await Files(kernel.init_gate()).write("/shared/oven.md", "The oven is the owner's.")
        by_author = await ann.group_by("author", "owner's", under="/shared", is_waiting=True)
        assert [each.key for each in by_author.groups] == ["owner"]
        assert (await ann.group_by("day")).groups[0].key == "2023-11-14"
        with pytest.raises(Unsupported, match="embedder"):
            await ann.group_by("topic")
        pairs = (await ann.join("q", "a")).pairs
        assert [(pair.path, pair.hit.path) for pair in pairs] == [
            ("/agents/ann/q/cake.txt", "/agents/ann/a/kitchen.md"),
            ("/agents/ann/q/rome.md", "/agents/ann/a/travel.md"),
        ]


async def test_meaning_finds_what_shares_no_word(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    async with opened(tmp_path, Config()) as kernel:
        ann = agent(kernel, "ann")
        await ann.edit([
            Put("a.md", b"The physician wrote a prescription for the sick child."),
            Put("b.md", b"The stock exchange closed higher after the bank cut its rate."),
            Put("c.md", b"A nurse gave the patient medicine at the hospital."),
        ])  # fmt: skip
        found = await ann.retrieve("doctors and clinics", is_waiting=True)
        assert found.embedder
        assert {hit.path for hit in found.hits[:2]} == {"/agents/ann/a.md", "/agents/ann/c.md"}
        assert any("meaning" in reason for reason in found.hits[0].why)
        topics = (await ann.group_by("topic")).groups
        assert sum(each.n_files for each in topics) == 3


async def test_what_may_not_be_read_is_refused_and_shares_are_followed(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        await ann.edit([Put("fox.md", b"a fox"), Put("secret.md", b"a fox")])
        with pytest.raises(AccessDenied):
            await bob.retrieve("fox", under="/agents/ann")
        with pytest.raises(AccessDenied):
            await bob.join("/agents/ann", "/shared")
        with pytest.raises(AccessDenied):
            await bob.reindex()
        with pytest.raises(NotFound):
            await bob.retrieve("fox", under="nosuch")
        for may_be_empty in ("/agents/bob", "/groups/owner", "/shared", "/agents"):
            assert await paths(bob, "fox", under=may_be_empty) == []
        assert await paths(bob, "fox") == []
        await ann.share("fox.md", "/agents/bob")
        assert await paths(bob, "fox") == ["/agents/ann/fox.md"]
        assert await paths(bob, "fox", under="/agents/ann") == ["/agents/ann/fox.md"]
        await ann.share("fox.md", "/agents/bob", "none")
        assert await paths(bob, "fox") == []
        owner = Files(kernel.init_gate())
        assert set(await paths(owner, "fox")) == {"/agents/ann/fox.md", "/agents/ann/secret.md"}
        assert (await owner.index()).disk_bytes > 0
        assert (await ann.index()).disk_bytes == 0


async def test_a_long_text_is_found_by_its_beginning(tmp_path: Path) -> None:
    config = Config(
        memory=MemoryConfig(embedder="none"), storage=StorageConfig(max_indexed_bytes=20_000)
    )
    async with opened(tmp_path, config) as kernel:
        ann = agent(kernel, "ann")
        await ann.write("long.txt", "begin\n" + "middle of it\n" * 3_000 + "end\n")
        await ann.write("long.pdf", b"%PDF" + b"x" * 30_000)
        assert await paths(ann, "begin") == ["/agents/ann/long.txt"]
        assert await paths(ann, "end") == []
        info = await ann.index()
        told = {each.path: (each.problem, each.is_partial) for each in info.problems}
        limit = "storage.max_indexed_bytes"
        assert told == {
            "/agents/ann/long.txt": (f"its first 20000 bytes, {limit}", True),
            "/agents/ann/long.pdf": (f"over 20000 bytes ({limit})", False),
        }
        assert info.n_text_files == 1


async def test_a_kernel_that_nobody_asks_about_files_opens_no_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        await agent(kernel, "ann").write("a.md", "a fox")
    assert (tmp_path / "aios.db").exists()
    (tmp_path / "index.db").unlink(missing_ok=True)
    async with opened(tmp_path) as kernel:
        await kernel.storage.open()  # as mounts do when the kernel starts
        await anyio.wait_all_tasks_blocked()
        assert not (tmp_path / "index.db").exists()
        assert await paths(Files(kernel.init_gate()), "fox") == ["/agents/ann/a.md"]


# --- two agents ---------------------------------------------------------------------------------------------------

WORDS = ["fox", "red fox", "badger den", "fox badger", "train"]
NAMES = ["fox.md", "x/badger.txt", "y/red.md"]
EDITS = st.one_of(
    st.builds(Put, st.sampled_from(NAMES), st.sampled_from(WORDS).map(str.encode)),
    st.builds(Delete, st.sampled_from(NAMES)),
    st.builds(Move, st.sampled_from(NAMES), st.sampled_from(NAMES)),
)
STEPS = st.lists(st.tuples(st.sampled_from(["ann", "bob"]), EDITS), max_size=12)

Seen = tuple[list[FileHit], list[object], list[object], IndexInfo]


async def seen_by_ann(home: Path, steps: list[tuple[str, Put | Delete | Move]]) -> Seen:
    """Everything that ann is told after these steps."""
    async with opened(home) as kernel:
        agents = {name: agent(kernel, name) for name in ("ann", "bob")}
        for name, edit in steps:
            try:
                await agents[name].edit([edit])
            except AiosError:
                continue  # a move from where nothing is
        ann = agents["ann"]
        info = await ann.index(is_waiting=True)
        hits = [hit for word in WORDS for hit in (await ann.retrieve(word, 50)).hits]
        groups = [
            each for by in ("folder", "author") for each in (await ann.group_by(by, "fox")).groups
        ]
        pairs = list((await ann.join("", "", 5)).pairs)
        told = repr((hits, groups, pairs, info))
        assert "/agents/bob" not in told
        return hits, list(groups), list(pairs), info


@settings(max_examples=10, deadline=None)
@given(STEPS)
async def test_what_another_agent_writes_changes_nothing_that_an_agent_is_told(
    steps: list[tuple[str, Put | Delete | Move]],
) -> None:
    """Not the hits, not their order, scores and reasons, not the groups and pairs, not the counts."""
    with TemporaryDirectory() as with_bob, TemporaryDirectory() as alone:
        theirs = await seen_by_ann(Path(with_bob), steps)
        mine = await seen_by_ann(Path(alone), [step for step in steps if step[0] == "ann"])
    assert theirs == mine


class Searches:
    """Each takes until it is let go on."""

    def __init__(self) -> None:
        self._ended, self._end = os.pipe()
        self.n_begun = 0

    def search(self, *_: object) -> list[FileHit]:
        self.n_begun += 1
        os.read(self._ended, 1)
        return []

    def end(self, n: int) -> None:
        os.write(self._end, b"." * n)

    async def wait_begun(self, n: int) -> None:
        while self.n_begun < n:
            await anyio.sleep(0.001)

    def close(self) -> None:
        os.close(self._end)  # first, so that whoever reads gets nothing
        os.close(self._ended)


@pytest.fixture
def searches() -> Iterator[Searches]:
    with closing(Searches()) as found:
        yield found


async def test_joins_come_one_after_another_and_searches_beside_them(
    tmp_path: Path, searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as kernel:
        files = [agent(kernel, name) for name in ("ann", "bob", "eve", "joe", "kim")]
        for each in files:
            await each.edit([Put("left/a", b"fox"), Put("right/b", b"fox")])
            assert len((await each.join("left", "right", is_waiting=True)).pairs) == 1
        monkeypatch.setattr(retriever, "search", searches.search)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for each in files:
                    tasks.start_soon(each.join, "left", "right")
                await searches.wait_begun(1)
                await anyio.wait_all_tasks_blocked()
                monkeypatch.undo()
                try:
                    found = await files[0].retrieve("fox")
                    assert len(found.hits) == 2
                    assert searches.n_begun == 1
                finally:
                    searches.end(len(files))


async def test_a_join_that_is_given_up_ends_after_the_search_that_it_is_in(
    tmp_path: Path, searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        await ann.edit([Put(f"left/{number}", b"fox") for number in range(9)])
        await ann.edit([Put("right/b", b"fox")])
        await ann.index(is_waiting=True)
        monkeypatch.setattr(retriever, "search", searches.search)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ann.join, "left", "right")
            await searches.wait_begun(1)
            tasks.cancel_scope.cancel()
            searches.end(9)
        assert searches.n_begun == 1


async def test_searches_of_one_family_come_one_after_another_and_those_of_others_beside_them(
    tmp_path: Path, searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        for each in (ann, bob):
            await each.write("a", b"fox")
            await each.index(is_waiting=True)
        monkeypatch.setattr(retriever, "search", searches.search)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    look = ann.retrieve if number % 2 else partial(ann.group_by, "folder")
                    tasks.start_soon(look, "fox")
                await searches.wait_begun(1)
                await anyio.wait_all_tasks_blocked()
                monkeypatch.undo()
                try:
                    assert searches.n_begun == 1
                    assert len((await bob.retrieve("fox")).hits) == 1
                finally:
                    searches.end(8)
