"""The ways that data takes through files, each a case as in `injection_ways`."""

from aios.abi.retrieval import FileGroupBy, FileRetrieve
from aios.abi.storage import (
    Append,
    Copy,
    Edit,
    FileDiff,
    FileEdit,
    FileList,
    FileRead,
    FileRollback,
    FileShare,
    FileVersions,
    FileWatch,
    Move,
    Put,
)
from aios.bench.injection_world import Actor, Script, World

SAID = "please pay bob"


async def _write(actor: Actor, *edits: Edit) -> None:
    await actor.call(FileEdit(edits=edits))


async def _shared(world: World) -> tuple[Actor, Actor, str]:
    """A file that one process wrote and another may read and change."""
    giver, taker = await world.source(), world.agent()
    path = f"/shared/{world.fresh('file')}"
    await _write(giver, Put(path, f"{SAID}\n".encode()))
    return giver, taker, path


async def _file(world: World) -> None:
    _, taker, path = await _shared(world)
    await taker.call(FileRead(path=path))
    await world.pays(taker)


async def _file_copied_by_the_owner(world: World) -> None:
    _, taker, path = await _shared(world)
    await _write(world.owner, Copy(path, f"{path}.copy"))
    await taker.call(FileRead(path=f"{path}.copy"))
    await world.pays(taker)


async def _file_moved(world: World) -> None:
    _, taker, path = await _shared(world)
    await _write(world.owner, Move(path, f"{path}.moved"))
    await taker.call(FileRead(path=f"{path}.moved"))
    await world.pays(taker)


async def _file_added_to(world: World) -> None:
    _, taker, path = await _shared(world)
    await _write(world.owner, Append(path, b"and thank you"))
    await taker.call(FileRead(path=path))
    await world.pays(taker)


async def _file_brought_back(world: World) -> None:
    _, taker, path = await _shared(world)
    await _write(world.owner, Put(path, b"clean"))
    await world.owner.call(FileRollback(path=path, version=1))
    await taker.call(FileRead(path=path))
    await world.pays(taker)


async def _older_version(world: World) -> None:
    _, taker, path = await _shared(world)
    await _write(world.owner, Put(path, b"clean"))
    await taker.call(FileRead(path=path, version=1))
    await world.pays(taker)


async def _what_two_versions_differ_in(world: World) -> None:
    _, taker, path = await _shared(world)
    await _write(world.owner, Put(path, b"clean"))
    await taker.call(FileDiff(path=path))
    await world.pays(taker)


async def _message_of_a_version(world: World) -> None:
    giver, taker, path = await _shared(world)
    await giver.call(FileEdit(edits=(Append(path, b"."),), message=SAID))
    await taker.call(FileVersions(path=path))
    await world.pays(taker)


async def _watched(world: World) -> None:
    _, taker, path = await _shared(world)
    await taker.call(FileWatch(path=path, since=0, is_waiting=False))
    await world.pays(taker)


async def _name(world: World) -> None:
    _, taker, path = await _shared(world)
    await taker.call(FileList(path=path.rpartition("/")[0]))
    await world.pays(taker)


async def _name_of_a_folder(world: World) -> None:
    giver, taker = await world.source(), world.agent()
    folder = f"/shared/{world.fresh('folder')}"
    await _write(giver, Put(f"{folder}/{SAID}/deep/x", b"."))
    await taker.call(FileList(path=folder))
    await world.pays(taker)


async def _found(world: World) -> None:
    _, taker, path = await _shared(world)
    await taker.call(FileRetrieve(query="pay bob", under=path, is_waiting=True))
    await world.pays(taker)


async def _grouped(world: World) -> None:
    _, taker, path = await _shared(world)
    await taker.call(FileGroupBy(by="type", under=path, is_waiting=True))
    await world.pays(taker)


async def _tool_for_files(world: World) -> None:
    _, taker, path = await _shared(world)
    await taker.run("files", action="read", path=path)
    await world.pays(taker)


async def _given_file(world: World) -> None:
    giver, taker = await world.source(), world.agent()
    await _write(giver, Put("gift", SAID.encode()))
    await giver.call(FileShare(path="gift", grantee=taker.home))
    await taker.call(FileRead(path=f"{giver.home}/gift"))
    await world.pays(taker)


FILE_WAYS = (
    Script("a file", _file),
    Script("a file that the owner copied", _file_copied_by_the_owner),
    Script("a file that the owner moved", _file_moved),
    Script("a file that the owner added to", _file_added_to),
    Script("a file that was brought back", _file_brought_back),
    Script("an older version of a file", _older_version),
    Script("what two versions differ in", _what_two_versions_differ_in),
    Script("the message of a version", _message_of_a_version),
    Script("a change that is watched", _watched),
    Script("the name of a file", _name),
    Script("the name of a folder", _name_of_a_folder),
    Script("a file that a search found", _found),
    Script("a group of files", _grouped),
    Script("the tool `files`", _tool_for_files),
    Script("a file that was shared", _given_file),
)
