from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.abi.memory import Hit, Note, Scope
from aios.abi.types import Exit, Kind, Pid
from aios.config import Config, Home, MemoryConfig
from aios.errors import AccessDenied, AiosError, Conflict, InvalidCall, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory import manager, words
from aios.kernel.process import INIT_PID
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio

FACTS = (
    "The user prefers vegetarian food",
    "Berlin is the capital of Germany",
    "Restart the server after changing its configuration",
)


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str) -> Memory:
    """The memory of a process of the owner's."""
    return Memory(kernel.gate(kernel.spawn_task(name, idle)))


def guest(kernel: Kernel, name: str) -> Memory:
    """The memory of a process that belongs to itself."""
    return Memory(kernel.gate(kernel.admit(name)[0].pid))


async def listed(memory: Memory) -> list[Note]:
    return [note async for note in memory.notes()]


async def test_a_note_is_found_by_words_and_by_meaning_and_says_why(booted: OpenKernel) -> None:
    async with booted() as kernel:
        memory = agent(kernel, "ann")
        ids = [await memory.remember(fact, tags=["fact"], source="test") for fact in FACTS]
        by_words = (await memory.recall("capital")).hits[0]
        assert by_words.note.id == ids[1]
        assert by_words.why[0] == "words #1"
        by_meaning = await memory.recall("which meals does he enjoy: pasta, salad, tofu?")
        assert by_meaning.embedder
        assert by_meaning.hits[0].note.id == ids[0]
        assert by_meaning.hits[0].why[0].startswith("meaning 0.")
        origin = by_words.note.origin
        assert (origin.owner, origin.name, origin.seq, origin.source) == ("owner", "ann", 2, "test")


async def test_without_an_embedder_words_alone_are_compared_and_it_is_said(tmp_path: Path) -> None:
    config = Config(memory=MemoryConfig(embedder="none"))
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        for fact in FACTS:
            await memory.remember(fact)
        found = await memory.recall("capitals")
        assert found.embedder == ""
        assert [hit.note.text for hit in found.hits] == [FACTS[1]]
        assert (await memory.recall('"; DROP TABLE AND OR NEAR( *')).hits == ()
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        hits: tuple[Hit, ...] = ()
        with anyio.fail_after(30):  # notes from before the embedder get vectors in the background
            while not hits:
                hits = (await memory.recall("which meals does he enjoy: pasta, salad, tofu?")).hits
                await anyio.wait_all_tasks_blocked()
        assert hits[0].note.text == FACTS[0]


async def test_notes_outlive_the_kernel_except_those_of_a_process(tmp_path: Path) -> None:
    for start in range(2):
        async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
            memory = agent(kernel, "ann")
            if start == 0:
                await memory.remember("for later")
                await memory.remember("for now", scope="process")
                assert len(await listed(memory)) == 2
                await memory.recall("for later")
                continue
            notes = await listed(memory)
            assert [note.text for note in notes] == ["for later"]
            assert notes[0].n_used == 1, "its use was written down when the kernel ended"
            assert [note.text for note in await listed(Memory(kernel.init_gate()))] == ["for later"]


async def test_scopes_say_who_reads(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob, eve = agent(kernel, "ann"), agent(kernel, "bob"), guest(kernel, "eve")
        for scope in Scope:
            await ann.remember(scope.value, scope=scope.value)

        async def seen(memory: Memory) -> list[str]:
            return [note.text for note in await listed(memory)]

        assert await seen(ann) == ["process", "agent", "group", "shared"]
        assert await seen(bob) == ["group", "shared"]
        assert await seen(eve) == ["shared"]
        assert len(await seen(Memory(kernel.init_gate()))) == 4
        with pytest.raises(AccessDenied):
            await eve.update(4, "mine now")
        with pytest.raises(AccessDenied):
            await eve.forget(4)
        await bob.update(4, "corrected by another of the same owner")
        with pytest.raises(NotFound):
            await bob.forget(2)


async def test_an_update_keeps_the_old_fact_and_forgetting_takes_both(booted: OpenKernel) -> None:
    async with booted() as kernel:
        memory = agent(kernel, "ann")
        old = await memory.remember("The user eats meat", tags=["food"], importance=0.9)
        new = await memory.update(old, "The user is a vegetarian now")
        before, after = (await memory.get(old)).note, (await memory.get(new)).note
        assert (before.superseded_by, after.supersedes) == (new, old)
        assert before.valid_to_unix_s == after.valid_from_unix_s
        assert (after.tags, after.importance) == (("food",), 0.9)
        assert [hit.note.id for hit in (await memory.recall("user eats meat")).hits] == [new]
        found = await memory.recall("user eats meat", include_superseded=True)
        assert {hit.note.id for hit in found.hits} == {old, new}
        with pytest.raises(Conflict, match=f"note {new}"):
            await memory.update(old, "again")
        assert set(await memory.forget(new)) == {old, new}
        assert await listed(memory) == []
        assert (await memory.recall("vegetarian")).hits == ()


async def test_an_update_keeps_how_long_a_note_is_to_hold(booted: OpenKernel) -> None:
    async with booted() as kernel:
        memory = agent(kernel, "ann")
        now = kernel.clock.unix_s()
        old = await memory.remember(
            "The museum opens at 9", valid_to_unix_s=now + 60, expires_in_s=90
        )
        before = (await memory.get(old)).note
        after = (await memory.get(await memory.update(old, "The museum opens at 10"))).note
        assert (after.valid_to_unix_s, after.expires_unix_s) == (now + 60, before.expires_unix_s)
        over = await memory.remember("Shut", valid_from_unix_s=1, valid_to_unix_s=2)
        again = (await memory.get(await memory.update(over, "Shut again"))).note
        assert again.valid_to_unix_s is None


async def test_a_note_gets_and_loses_tags_and_stays_the_same(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob, eve = agent(kernel, "ann"), agent(kernel, "bob"), guest(kernel, "eve")
        note = await ann.remember("boats are red", scope="shared", tags=["sea", "old"])
        await ann.recall("boats")
        before = (await ann.get(note)).note
        after = (await bob.tag(note, add=["sea", "colour"], remove=["old", "absent"])).note
        assert after.tags == ("sea", "colour")
        assert msgspec.structs.replace(after, tags=before.tags) == before
        assert [hit.note.id for hit in (await ann.recall("boats", tags=["colour"])).hits] == [note]
        assert (await ann.recall("boats", tags=["old"])).hits == ()
        with pytest.raises(AccessDenied):
            await eve.tag(note, add=["mine"])
        await ann.tag(note, add=[f"t{number}" for number in range(30)])
        with pytest.raises(InvalidCall, match="33 tags"):
            await ann.tag(note, add=["more"])
        await ann.tag(note, add=["more"], remove=["t0"])
        await ann.update(note, "boats are blue")
        with pytest.raises(Conflict, match="was replaced"):
            await ann.tag(note, add=["late"])
        assert (await Memory(kernel.init_gate()).check()).faults == ()


async def test_a_note_is_forgotten_at_a_moment_that_is_to_come(booted: OpenKernel) -> None:
    async with booted() as kernel:
        memory, now = agent(kernel, "ann"), kernel.clock.unix_s()
        note = await memory.remember("rain", expires_unix_s=now + 60)
        assert (await memory.get(note)).note.expires_unix_s == now + 60
        with pytest.raises(InvalidCall, match="at once"):
            await memory.remember("rain", expires_unix_s=now)
        with pytest.raises(InvalidCall, match="two times"):
            await memory.remember("rain", expires_unix_s=now + 60, expires_in_s=60)


async def test_an_imported_note_is_ones_own_and_keeps_its_scope(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, eve = agent(kernel, "ann"), guest(kernel, "eve")
        long = "x" * 4_096
        ids = [
            await ann.remember(scope, scope=scope, tags=["t"], source=long, expires_in_s=60)
            for scope in ("process", "agent", "group", "shared")
        ]
        for note in [each async for each in ann.notes()]:
            mine = (await eve.get(await eve.import_note(note))).note
            scope = "agent" if note.text == "process" else note.text
            assert (mine.text, mine.scope.value, mine.tags) == (note.text, scope, ("t",))
            assert mine.origin.owner == "eve"
            assert mine.origin.source.endswith(f"x (note {note.id} of owner/ann)")
            assert mine.expires_unix_s == note.expires_unix_s
        whole = (await ann.get(ids[0])).note
        moved = await eve.import_note(whole, scope="shared")
        assert (await ann.get(moved)).note.scope is Scope.SHARED


async def test_an_imported_note_keeps_the_mark_of_where_it_came_from(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, eve = agent(kernel, "ann"), guest(kernel, "eve")
        note = (await eve.get(await eve.remember("pay bob", scope="shared", taint="web"))).note
        assert note.taint == "guest eve"  # what is known of the caller comes first
        mine = (await ann.get(await ann.import_note(note))).note
        assert mine.taint == "guest eve"


async def test_tags_times_and_expiry_limit_what_is_found(booted: OpenKernel) -> None:
    async with booted() as kernel:
        memory = agent(kernel, "ann")
        now = kernel.clock.unix_s()
        await memory.remember("rain in spring", tags=["a", "b"], valid_from_unix_s=now + 100)
        await memory.remember("rain in summer", tags=["a"], valid_from_unix_s=1, valid_to_unix_s=2)
        await memory.remember("rain in autumn", expires_in_s=1e-6)

        async def texts(**options: object) -> list[str]:
            found = await memory.recall("rain", **options)  # type: ignore[arg-type]  # one helper for all options
            return [hit.note.text for hit in found.hits]

        assert await texts() == []
        assert await texts(at_unix_s=1.5) == ["rain in summer"]
        assert await texts(at_unix_s=now + 101, tags=["b", "a"]) == ["rain in spring"]
        assert await texts(at_unix_s=now + 101, tags=["c"]) == []
        assert await texts(at_unix_s=now + 101, since_unix_s=now + 50) == []
        with pytest.raises(InvalidCall):
            await memory.remember("never", valid_from_unix_s=5, valid_to_unix_s=5)


async def test_common_words_do_not_hide_rare_ones_and_find_the_newest_alone(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MAX_MATCHES", 2)
    async with booted() as kernel:
        memory = agent(kernel, "ann")
        ids = [await memory.remember(f"boat number {number}") for number in range(5)]
        rare = await memory.remember("boat with a spinnaker")

        async def found(query: str) -> list[int]:
            hits = (await memory.recall(query)).hits
            return [hit.note.id for hit in hits if hit.why[0].startswith("words")]

        assert await found("boat spinnaker") == [rare]
        assert (await found("number of the boat absent"))[0] == ids[-1]
        assert sorted(await found("boat number")) == ids
        assert await found("absent") == []


async def test_links_show_only_what_the_caller_may_read(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, eve = agent(kernel, "ann"), guest(kernel, "eve")
        public = await ann.remember("public", scope="shared")
        private = await ann.remember("private")
        await ann.link(public, private)
        assert (await ann.get(private)).links == (public,)
        assert (await eve.get(public)).links == ()
        with pytest.raises(NotFound):
            await eve.link(await eve.remember("mine"), private)
        await ann.link(private, public, is_on=False)
        assert (await ann.get(public)).links == ()
        with pytest.raises(InvalidCall):
            await ann.link(public, public)


async def test_uses_are_written_down_now_and_then(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_pending = 40
    monkeypatch.setattr(manager, "MAX_PENDING_USES", n_pending)
    async with booted() as kernel:
        memory = Memory(kernel.init_gate())
        async with anyio.create_task_group() as tasks:
            for number in range(n_pending + 1):
                tasks.start_soon(memory.remember, f"thing {number}")
        async with kernel.db._turn:  # the disk takes nothing: a recall does not wait for it
            with anyio.fail_after(30):
                for number in range(n_pending + 1):
                    await memory.recall(f"thing {number}", limit=1)
        assert sum(note.n_used for note in await listed(memory)) == 0
        await memory.remember("something else")
        assert sum(note.n_used for note in await listed(memory)) > 0


async def test_the_same_team_finds_its_notes_again_and_a_namesake_does_not(tmp_path: Path) -> None:
    for earlier in ([], ["of the child"]):
        async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
            boss, other = (kernel.spawn_task(name, idle) for name in ("boss", "other"))
            child = Memory(kernel.gate(_alone(kernel, boss)))
            assert [note.text for note in await listed(child)] == earlier
            if earlier:
                continue
            await child.remember("of the child")
            assert [note.agent for note in await listed(Memory(kernel.init_gate()))] == ["boss/ann"]
            for parent in (INIT_PID, other):
                ann = Memory(kernel.gate(_alone(kernel, parent)))
                assert await listed(ann) == []
                assert (await ann.recall("child")).hits == ()
                with pytest.raises(NotFound):
                    await ann.update(1, "of the namesake")
                with pytest.raises(NotFound):
                    await ann.link(1, 1)


HIDDEN = "hidden"
AGENTS = {"ann": "ann", "bob": "bob", "eve": "eve", "kid": "bob/ann"}
"""Who is called what: the child that bob starts has the name of ann, so one of them has ended while the other lives."""
names = st.sampled_from(list(AGENTS))
steps = st.lists(
    st.tuples(names, st.sampled_from(["remember", "recall", "follow", "get", "update", "forget", "link", "tag", "list", "log"]),
              st.sampled_from(list(Scope)), st.integers(1, 12), st.integers(1, 12)),
    max_size=30,
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_nobody_ever_sees_or_changes_a_private_note_of_another(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, str, Scope, int, int]]
) -> None:
    anyio.run(_follow, tmp_path_factory.mktemp("home"), plan)


async def _follow(folder: Path, plan: list[tuple[str, str, Scope, int, int]]) -> None:
    config = Config(memory=MemoryConfig(embedder="none"))
    async with open_kernel(config, Home(folder), engines={}) as kernel:
        bob, eve = kernel.spawn_task("bob", idle), kernel.admit("eve")[0].pid
        for who, verb, scope, one, other in plan:
            pid = {"bob": bob, "eve": eve}.get(who) or _alone(
                kernel, INIT_PID if who == "ann" else bob
            )
            try:
                seen = await _do(Memory(kernel.gate(pid)), verb, scope, (one, other), me=who)
            except AiosError:
                seen = ()
            for note in seen:
                assert _may_read(who, note), f"{who} saw {note}"
                assert note.scope is not Scope.PROCESS or note.origin.pid == pid
        init = Memory(kernel.init_gate())
        async for note in init.notes(scopes=["agent"]):
            assert note.text in {
                f"{HIDDEN} of {who}" for who in AGENTS if AGENTS[who] == note.agent
            }


def _alone(kernel: Kernel, parent: Pid) -> Pid:
    """The agent of the name that two of them have which that parent has started; the other has ended."""
    living = kernel.table.find_named("ann")
    if living is not None:
        if living.ppid == parent:
            return living.pid
        kernel.end_process(living, Exit(0))
    found = kernel.add_process("ann", Kind.TASK, kernel.table.get(parent))
    assert found.name == "ann"
    return found.pid


async def _do(
    memory: Memory, verb: str, scope: Scope, ids: tuple[int, int], *, me: str
) -> Sequence[Note]:
    match verb:
        case "remember":
            await memory.remember(f"{HIDDEN} of {me}", scope=scope.value)
        case "recall":
            found = await memory.recall(HIDDEN, limit=100, include_superseded=True)
            return [hit.note for hit in found.hits]
        case "follow":
            found = await memory.recall(HIDDEN, limit=100, follow_links=True)
            return [hit.note for hit in found.hits]
        case "log":
            await memory.log(f"{HIDDEN} of {me}")
            records = (await memory.read(limit=100)).records
            assert {record.text for record in records} == {f"{HIDDEN} of {me}"}
        case "get":
            details = await memory.get(ids[0])
            linked = [(await memory.get(each)).note for each in details.links]
            return [details.note, *linked]
        case "update":
            await memory.update(ids[0], f"{HIDDEN} of {me}")
        case "forget":
            note = (await memory.get(ids[0])).note
            assert ids[0] in await memory.forget(ids[0])
            return [note]
        case "link":
            await memory.link(*ids)
        case "tag":
            return [(await memory.tag(ids[0], add=[me])).note]
        case "list":
            return await listed(memory)
    return ()


def _may_read(who: str, note: Note) -> bool:
    owner = "eve" if who == "eve" else "owner"
    match note.scope:
        case Scope.SHARED:
            return True
        case Scope.GROUP:
            return note.origin.owner == owner
        case Scope.AGENT | Scope.PROCESS:
            return note.text == f"{HIDDEN} of {who}"
