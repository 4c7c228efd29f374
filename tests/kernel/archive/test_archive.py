"""`AIOS_TEST_ARCHIVES=200` makes the round trip longer; the seed stands in the message of a failure."""

import io
import os
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import apsw
import pytest
from tests.kernel.conftest import NOBODY, UNASKED

from aios.abi.interactions import MemoryLog
from aios.abi.memory import Remember, Scope
from aios.abi.storage import Append, Copy, Delete, Edit, Move, Put
from aios.config import Config, Home
from aios.disk.blobs import BlobStore
from aios.disk.connection import connect
from aios.disk.migrations import migrate
from aios.errors import AiosError, Conflict, InvalidCall
from aios.kernel.archive.archive import Part, check_archive, save_all, take_all
from aios.kernel.archive.format import (
    LENGTH_BYTES,
    Entry,
    SavedInteraction,
    SavedNote,
    SavedReplacement,
    SavedVersion,
    Writer,
)
from aios.kernel.archive.taken import TakenIn
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel
from aios.kernel.memory.check import check_notes
from aios.kernel.schemas import SCHEMAS
from aios.kernel.storage.check import check_all
from aios.sdk.files import Files
from aios.sdk.memory import Memory

N_HOMES = int(os.environ.get("AIOS_TEST_ARCHIVES", "1"))
ALL: frozenset[Part] = frozenset({"notes", "files"})
N_STEPS = 60

pytestmark = pytest.mark.anyio


def silent(_what: str, _n_done: int, _n_total: int | None) -> None:
    """Nobody looks."""


def saved(home: Home, parts: frozenset[Part] = ALL) -> bytes:
    connection, out = connect(home.database, is_writer=False), io.BytesIO()
    save_all(connection, BlobStore(home.blobs), out, parts=parts, report=silent)
    connection.close()
    return out.getvalue()


def taken(home: Home, archive: bytes, *, keeps_mine: bool = False) -> TakenIn:
    home.root.mkdir(exist_ok=True)
    connection = connect(home.database, is_writer=True)
    try:
        migrate(connection, SCHEMAS)
        check_archive(io.BytesIO(archive), silent)
        blobs, file = BlobStore(home.blobs), io.BytesIO(archive)
        return take_all(connection, blobs, file, keeps_mine=keeps_mine, report=silent)
    finally:
        connection.close()


QUESTIONS = {
    "notes": "SELECT PLACE(n.id), s.scope, s.owner, s.name, text, tags, importance, n.owner, n.name, pid, seq, source, "
    "created_unix_s, valid_from_unix_s, valid_to_unix_s, expires_unix_s, n_used, PLACE(n.superseded_by), v.embedder, v.vector "
    "FROM memory_notes n JOIN memory_spaces s ON s.id = n.space LEFT JOIN memory_vectors v ON v.note = n.id ORDER BY n.id",
    "replaced": "SELECT PLACE(n.supersedes), PLACE(n.id) FROM memory_notes n JOIN memory_notes o ON o.id = n.supersedes ORDER BY n.id",
    "links": "SELECT PLACE(a) x, PLACE(b) y FROM memory_links ORDER BY x, y",
    "interactions": "SELECT owner, name, id, unix_s, kind, text, taint FROM memory_interactions",
    "versions": "SELECT path, version, boot, pid, author, unix_s, message, size_bytes, content IS NULL, "
    "(SELECT count(*) FROM versions w WHERE w.change < (SELECT min(change) FROM versions x WHERE x.tx = versions.tx)) "
    "FROM versions ORDER BY change",
    "files": "SELECT path, version, size_bytes, changed_unix_s FROM files ORDER BY path",
    "usage": "SELECT root, n_files, size_bytes FROM usage WHERE n_files > 0 ORDER BY root",
    "shares": "SELECT * FROM shares ORDER BY path, grantee",
}


def look(home: Home) -> dict[str, list[tuple[object, ...]]]:
    """All that is in the tables, with places instead of ids; nothing of it comes from what is tested."""
    connection = connect(home.database, is_writer=False)
    place = r"(SELECT count(*) FROM memory_notes m WHERE m.id <= \1)"
    questions = {
        name: re.sub(r"PLACE\(([a-z_.]+)\)", place, sql) for name, sql in QUESTIONS.items()
    }
    found = {name: list(connection.execute(sql)) for name, sql in questions.items()}
    faults = [*check_all(connection, BlobStore(home.blobs)).faults, *check_notes(connection).faults]
    connection.close()
    assert not faults
    return found


async def fill(home: Home, draw: random.Random) -> dict[str, bytes]:
    """Do this and that with notes and files as three agents. Returns: every version of every file."""
    async with open_kernel(Config(access=UNASKED, approvals=NOBODY), home, engines={}) as kernel:
        one, other = (kernel.admit(name)[0] for name in "ab")
        child, _ = kernel.admit("c", parent=one)
        gates = [kernel.init_gate(), *(kernel.gate(each.pid) for each in (one, other, child))]
        notes: list[int] = []
        for number in range(N_STEPS):
            act = draw.choice([remember, change_note, change_files, change_files, log])
            with suppress(AiosError):  # what is not there, or not theirs, cannot be changed
                await act(draw.choice(gates), draw, (number, notes))
        files = Files(kernel.init_gate())
        paths = await kernel.db.read(
            lambda c: [p for (p,) in c.execute("SELECT DISTINCT path FROM versions")]
        )
        return {
            f"{path} {each.version}": await files.read(path, version=each.version)
            for path in paths
            for each in await files.versions(path)
            if each.size_bytes is not None
        }


Step = tuple[int, list[int]]
Act = Callable[[LocalGate, random.Random, Step], Awaitable[None]]


async def remember(gate: LocalGate, draw: random.Random, step: Step) -> None:
    number, notes = step
    call = Remember(
        text=f"boat {number} \N{SAILBOAT} " + "sails " * draw.randrange(40),
        scope=draw.choice([Scope.AGENT, Scope.GROUP, Scope.SHARED]),
        tags=("boat", f"n{number}")[: draw.randrange(3)],
        importance=draw.random(),
        source=draw.choice(["", "a book"]),
        valid_to_unix_s=draw.choice([None, 9e9]),
        expires_in_s=draw.choice([None, 1e6]),
    )
    notes.append((await gate.call(call)).value.id)


async def change_note(gate: LocalGate, draw: random.Random, step: Step) -> None:
    number, notes = step
    memory = Memory(gate)
    one, other = draw.choice(notes or [1]), draw.choice(notes or [1])
    kind = draw.randrange(6)
    if kind <= 1:
        notes.append(await memory.update(one, f"ship {number}"))
    elif kind == 2:
        await memory.forget(one)
    elif kind == 3:
        await memory.recall("boat")
    else:
        await memory.link(one, other, is_on=kind == 4)


async def change_files(gate: LocalGate, draw: random.Random, step: Step) -> None:
    number, _ = step
    files = Files(gate)
    paths = [f"{folder}{draw.choice('abc')}/{draw.choice('xy')}" for folder in ("", "/shared/", "")]
    data = draw.randbytes(draw.choice([3, 2_000, 40_000, 1_500_000]))
    edits: list[Edit] = [Put(paths[0], data), Put(paths[1], data), Append(paths[0], b"more")]
    edits += [Copy(paths[0], paths[1]), Move(paths[0], paths[1]), Delete(paths[0])]
    edit = draw.choice(edits)
    await files.edit([edit, Put(paths[2], b"%d" % number)], message=draw.choice(["", "why"]))
    if draw.random() < 0.2:
        await files.purge(paths[0], keep=draw.randrange(3))
    if draw.random() < 0.2:
        await files.share(paths[0], "/agents/b", draw.choice(["read", "write", "none"]))


async def log(gate: LocalGate, draw: random.Random, step: Step) -> None:
    await gate.call(MemoryLog(f"said {step[0]}", kind=draw.choice(["said", "got"])))


async def test_what_is_saved_comes_back_as_it_was_and_only_once(tmp_path: Path) -> None:
    for number in range(N_HOMES):
        seed = random.SystemRandom().randrange(10**9)
        one, other = (Home(tmp_path / f"{side}{number}") for side in ("one", "other"))
        contents = await fill(one, random.Random(seed))  # noqa: S311 - repeatable on purpose
        archive = saved(one)
        first = taken(other, archive)
        before, after = look(one), look(other)
        for name in before:
            assert after[name] == before[name], f"{name} with seed {seed}"
        assert (first.n_notes, first.n_versions) == (len(after["notes"]), len(after["versions"]))
        again = taken(other, archive)
        assert (again.n_notes, again.n_versions, again.n_interactions, again.n_shares) == (0,) * 4
        assert again.n_known == sum(
            len(after[name]) for name in ("notes", "interactions", "versions")
        )
        assert look(other) == after, f"a second time changes nothing, seed {seed}"
        async with open_kernel(Config(), other, engines={}) as kernel:
            files = Files(kernel.init_gate())
            for each, data in contents.items():
                path, version = each.rsplit(" ", 1)
                assert await files.read(path, version=int(version)) == data, f"seed {seed}"
            assert (await Memory(kernel.init_gate()).check()).faults == ()


async def test_what_was_lost_comes_back_beside_what_is_newer(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    async with open_kernel(Config(), home, engines={}) as kernel:
        memory, files = Memory(kernel.init_gate()), Files(kernel.init_gate())
        old = await memory.remember("the boat is red")
        await memory.update(old, "the boat is blue")
        lost = await memory.remember("the sail is white")
        await files.write("/shared/a", "first")
        await files.write("/shared/lost", "only here")
    archive = saved(home)
    async with open_kernel(Config(), home, engines={}) as kernel:
        memory, files = Memory(kernel.init_gate()), Files(kernel.init_gate())
        await memory.forget(old)
        await memory.forget(lost)
        await files.write("/shared/a", "second")
        await files.delete("/shared/lost")
        await files.purge("/shared/lost", keep=0)
    assert taken(home, archive) == TakenIn(2, 0, 1, 0, 2, ())
    async with open_kernel(Config(), home, engines={}) as kernel:
        memory, files = Memory(kernel.init_gate()), Files(kernel.init_gate())
        assert [note.text async for note in memory.notes()] == [
            "the boat is blue",
            "the sail is white",
        ]
        texts = [note.text async for note in memory.notes(include_superseded=True)]
        assert sorted(texts) == ["the boat is blue", "the boat is red", "the sail is white"]
        assert await files.read_text("/shared/a") == "second"
        assert await files.read_text("/shared/lost") == "only here"
    look(home)


async def test_what_differs_here_is_a_conflict_or_stays(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in ("one", "other")]
    for home, text in zip(homes, ("theirs", "mine"), strict=True):
        async with open_kernel(Config(), home, engines={}) as kernel:
            await kernel.init_gate().call(MemoryLog(text))
            files = Files(kernel.init_gate())
            await files.write("/shared/a", text)
            await files.write("/shared/a", f"{text} again")
            await files.write(f"/shared/{text}", text)
    archive, before = saved(homes[0]), look(homes[1])
    with pytest.raises(Conflict, match="other interactions here"):
        taken(homes[1], archive)
    with pytest.raises(Conflict, match="/shared/a has another version 1 here"):
        taken(homes[1], saved(homes[0], frozenset({"files"})))
    assert look(homes[1]) == before
    found = taken(homes[1], archive, keeps_mine=True)
    assert found.kept == ("interactions of owner/init", "/shared/a")
    assert (found.n_versions, found.n_interactions) == (1, 0)
    after = look(homes[1])
    assert [row[0] for row in after["files"]] == ["/shared/a", "/shared/mine", "/shared/theirs"]
    assert after["versions"][:3] == before["versions"]


async def test_a_damaged_or_changed_archive_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    seed = random.SystemRandom().randrange(10**9)
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    await fill(one, draw)
    archive = saved(one)
    taken(other, saved(one, frozenset()))
    before = look(other)
    for spoilt in spoilt_copies(archive, draw):
        with pytest.raises(InvalidCall):
            taken(other, spoilt)
        assert look(other) == before, f"seed {seed}"


def note_of(name: str, number: int) -> SavedNote:
    whose = ("owner", name)
    return SavedNote(
        number, "agent", *whose, f"of {name}", (), 0.5, *whose, 2, 1, "", 1.0, 1.0, None, None, 0, "", b""
    )  # fmt: skip


def written(*entries: Entry) -> bytes:
    out = io.BytesIO()
    writer = Writer(out)
    for entry in entries:
        writer.put(entry)
    writer.seal()
    return out.getvalue()


@pytest.mark.parametrize(
    "entries",
    [
        (SavedInteraction("owner", "ann", (1 << 63) - 1, 1.0, "said", "x"),),
        (SavedVersion("/shared/a", (1 << 63) - 1, None, 1, 1, 1, "owner", 1.0, ""),),
    ],
    ids=["no-more-records", "no-more-versions"],
)
def test_an_archive_that_was_made_to_do_harm_is_refused(
    tmp_path: Path, entries: tuple[Entry, ...]
) -> None:
    with pytest.raises(InvalidCall, match="damaged or was changed"):
        taken(Home(tmp_path), written(*entries))


async def test_a_note_takes_the_place_of_no_other_agents_note(tmp_path: Path) -> None:
    home = Home(tmp_path)
    taken(home, written(note_of("ann", 1), note_of("bob", 2), SavedReplacement(1, 2)))
    async with open_kernel(Config(), home, engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        ann, bob = [note async for note in memory.notes(include_superseded=True)]
        assert (ann.superseded_by, bob.supersedes) == (None, None)
        await memory.forget(bob.id)
        assert [note.text async for note in memory.notes()] == ["of ann"]


def spoilt_copies(archive: bytes, draw: random.Random) -> Sequence[bytes]:
    """Copies with a bit turned, cut off, with something behind the end, and with two entries in each other's place."""
    copies = [
        b"",
        b"no archive",
        archive + b"x",
        archive[:-1],
        archive.replace(b"archive 1", b"archive 2", 1),
    ]
    for _ in range(8):
        place, bit = draw.randrange(len(archive)), 1 << draw.randrange(8)
        copies.append(archive[:place] + bytes([archive[place] ^ bit]) + archive[place + 1 :])
        copies.append(archive[: draw.randrange(len(archive))])
    begin = archive.index(b"\n") + 1
    first = begin + LENGTH_BYTES + int.from_bytes(archive[begin : begin + LENGTH_BYTES])
    second = first + LENGTH_BYTES + int.from_bytes(archive[first : first + LENGTH_BYTES])
    swapped = archive[:begin] + archive[first:second] + archive[begin:first] + archive[second:]
    return [*copies, swapped]


async def test_the_tables_of_another_aios_are_not_saved(tmp_path: Path) -> None:
    home = Home(tmp_path)
    connection = connect(home.database, is_writer=True)
    migrate(connection, SCHEMAS)
    connection.execute("UPDATE schema_versions SET version = version - 1 WHERE area = 'memory'")
    with pytest.raises(Conflict, match="another AIOS"):
        saved(home)
    assert isinstance(connection, apsw.Connection)
    connection.close()
