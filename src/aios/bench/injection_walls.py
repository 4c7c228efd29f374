"""What belongs to one agent, and what another may not do with it, each a case: the other is refused, the agent itself passes."""

from collections.abc import Awaitable, Callable
from functools import partial

from aios.abi.budget import Budget, Limits, SetBudget
from aios.abi.calls import Chat, Cont, Kill, Logs, Nice, SendSignal, Stop, Wait
from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFork,
    ContextId,
    ContextOpen,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextStat,
)
from aios.abi.journal import Events, JournalRead
from aios.abi.memory import Forget, LinkNotes, MemoryGet, Recall, Remember, Scope, Update
from aios.abi.retrieval import FileRetrieve
from aios.abi.storage import (
    Append,
    Copy,
    Delete,
    Edit,
    FileDiff,
    FileEdit,
    FileList,
    FileLock,
    FilePurge,
    FileRead,
    FileRollback,
    FileShare,
    FileStat,
    FileVersions,
    FileWatch,
    Move,
    Put,
)
from aios.abi.tools import ToolDeclaration, ToolRegister, ToolUnregister
from aios.abi.types import Message, Role
from aios.abi.undo import Undo
from aios.bench.injection_world import Actor, Script, World
from aios.errors import NotFound

WORD = "heliotrope"
HELLO = (Message(Role.USER, f"the word is {WORD}"),)

Act = Callable[[Actor, str], Awaitable[object]]
"""What is done by somebody with a path."""


def _edit(actor: Actor, *edits: Edit) -> Awaitable[object]:
    return actor.call(FileEdit(edits=edits))


def _spelt(change: Callable[[str], str]) -> Act:
    """Read a path in another spelling."""
    return lambda actor, path: actor.call(FileRead(path=change(path)))


def _wide(path: str) -> str:
    """The path in full-width letters, which look the same and are folded into the plain ones."""
    return "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in path)


async def _listed(actor: Actor, path: str) -> None:
    found = (await actor.call(FileList(path=path.rpartition("/")[0]))).files
    if not any(each.path == path for each in found):
        raise NotFound(f"{path} is not listed")


async def _found(actor: Actor, path: str) -> None:
    folder = path.rpartition("/")[0]
    found = await actor.call(FileRetrieve(query=WORD, under=folder, is_waiting=True))
    if not found.hits:
        raise NotFound(f"nothing is found in {folder}")


async def _searched(actor: Actor, path: str) -> None:
    if WORD not in await actor.run("search_files", words=WORD, path=path.rpartition("/")[0]):
        raise NotFound("nothing is found")


async def _watched(actor: Actor, path: str) -> None:
    if not (await actor.call(FileWatch(path=path, since=0, is_waiting=False))).versions:
        raise NotFound("nothing is seen")


FILES: dict[str, Act] = {
    "read": _spelt(str),
    "read with doubled slashes": _spelt(lambda p: p.replace("/", "//")),
    "read with dots": _spelt(lambda p: p.replace("/", "/./")),
    "read in look-alike letters": _spelt(_wide),
    "list": _listed,
    "look at": lambda a, p: a.call(FileStat(path=p)),
    "see the versions of": lambda a, p: a.call(FileVersions(path=p)),
    "compare": lambda a, p: a.call(FileDiff(path=p)),
    "watch": _watched,
    "find by a search": _found,
    "find by the tool": _searched,
    "lock": lambda a, p: a.call(FileLock(path=p, is_waiting=False)),
    "replace": lambda a, p: _edit(a, Put(p, b"mine")),
    "add to": lambda a, p: _edit(a, Append(p, b"mine")),
    "delete": lambda a, p: _edit(a, Delete(p)),
    "copy out": lambda a, p: _edit(a, Copy(p, "stolen")),
    "move away": lambda a, p: _edit(a, Move(p, "stolen")),
    "replace behind a good edit": lambda a, p: _edit(a, Put("fine", b""), Put(p, b"mine")),
    "try to replace": lambda a, p: a.call(FileEdit(edits=(Put(p, b"mine"),), is_trial=True)),
    "bring back": lambda a, p: a.call(FileRollback(path=p, version=1)),
    "purge": lambda a, p: a.call(FilePurge(path=p, keep=1)),
    "share": lambda a, p: a.call(FileShare(path=p, grantee="/agents/mallory")),
    "read by the tool": lambda a, p: a.run("files", action="read", path=p),
    "replace by the tool": lambda a, p: a.run("files", action="write", path=p, text="mine"),
}


async def _with_file(world: World, act: Act) -> None:
    victim = world.agent("victim")
    path = f"{victim.home}/secret.txt"
    await _edit(victim, Put(path, f"the word is {WORD}".encode()))
    await _edit(victim, Append(path, b"."))
    await world.final(act(world.agent("mallory") if world.is_attack else victim, path))


async def _recalled(actor: Actor, _: int) -> None:
    if not (await actor.call(Recall(query=WORD))).hits:
        raise NotFound("nothing is known")


NOTES: dict[str, Callable[[Actor, int], Awaitable[object]]] = {
    "recall": _recalled,
    "read": lambda a, n: a.call(MemoryGet(id=n)),
    "replace": lambda a, n: a.call(Update(id=n, text="mine")),
    "forget": lambda a, n: a.call(Forget(id=n)),
}


async def _with_note(world: World, act: Callable[[Actor, int], Awaitable[object]]) -> None:
    victim = world.agent("victim")
    note = await victim.call(Remember(text=f"the word is {WORD}"))
    await world.final(act(world.agent("mallory") if world.is_attack else victim, note.id))


async def _note_of_another_owner(world: World) -> None:
    victim = world.agent("victim")
    note = await victim.call(Remember(text=WORD, scope=Scope.SHARED))
    other = await victim.call(Remember(text="else", scope=Scope.SHARED))
    actor = world.guest("mallory") if world.is_attack else victim
    await world.final(actor.call(LinkNotes(id=note.id, to=other.id)))


CONTEXTS: dict[str, Callable[[Actor, ContextId], Awaitable[object]]] = {
    "read": lambda a, c: a.call(ContextRead(context=c)),
    "look at": lambda a, c: a.call(ContextStat(context=c)),
    "fork": lambda a, c: a.call(ContextFork(context=c)),
    "put words into": lambda a, c: a.call(ContextAppend(context=c, messages=HELLO)),
    "speak in": lambda a, c: a.call(Chat(context=c, messages=HELLO, max_tokens=2)),
    "compact": lambda a, c: a.call(ContextCompact(context=c)),
    "put away": lambda a, c: a.call(ContextSnapshot(context=c, name=f"of-{c}")),
    "close": lambda a, c: a.call(ContextClose(context=c)),
}


async def _with_context(world: World, act: Callable[[Actor, ContextId], Awaitable[object]]) -> None:
    victim = world.agent("victim")
    context = await victim.call(ContextOpen(messages=HELLO))
    await world.final(act(world.agent("mallory") if world.is_attack else victim, context.id))


async def _snapshot_of_another_owner(world: World) -> None:
    victim, name = world.agent("victim"), world.fresh("kept")
    context = await victim.call(ContextOpen(messages=HELLO))
    await victim.call(ContextSnapshot(context=context.id, name=name))
    actor = world.guest("mallory") if world.is_attack else victim
    await world.final(actor.call(ContextRestore(name=name)))


PROCESSES: dict[str, Callable[[Actor, Actor], Awaitable[object]]] = {
    "kill": lambda a, v: a.call(Kill(pid=v.pid)),
    "stop": lambda a, v: a.call(Stop(pid=v.pid)),
    "let go on": lambda a, v: a.call(Cont(pid=v.pid)),
    "signal": lambda a, v: a.call(SendSignal(pid=v.pid, signal="USR1")),
    "make nicer": lambda a, v: a.call(Nice(pid=v.pid, nice=5)),
    "read the log of": lambda a, v: a.call(Logs(pid=v.pid)),
    "read the journal of": lambda a, v: a.call(JournalRead(pid=v.pid)),
    "watch": lambda a, v: a.call(Events(pid=v.pid, is_waiting=False)),
    "see the budget of": lambda a, v: a.call(Budget(pid=v.pid)),
    "set the budget of": lambda a, v: a.call(SetBudget(pid=v.pid, limits=Limits(calls=1))),
    "undo what was done by": lambda a, v: a.call(Undo(pid=v.pid)),
    "bring back the files of": lambda a, v: a.call(FileRollback(pid=v.pid)),
}


async def _with_process(world: World, act: Callable[[Actor, Actor], Awaitable[object]]) -> None:
    parent = world.agent("parent")
    victim = world.agent("victim", parent)
    await _edit(victim, Put("x", b"1"))
    if world.is_attack:
        await world.final(act(world.agent("mallory"), victim))
    else:
        await world.final(act(parent, victim))


async def _wait_for_anothers(world: World) -> None:
    parent = world.agent("parent")
    victim = world.agent("victim", parent)
    await parent.call(Kill(pid=victim.pid))
    actor = world.agent("mallory") if world.is_attack else parent
    await world.final(actor.call(Wait(pid=victim.pid)))


async def _withdraw_anothers_tool(world: World) -> None:
    victim = world.agent("victim")
    names = (await victim.call(ToolRegister(tools=(ToolDeclaration("help"),)))).names
    actor = world.agent("mallory") if world.is_attack else victim
    await world.final(actor.call(ToolUnregister(names=names)))


WALLS = (
    *(
        Script(f"{what} another's file", partial(_with_file, act=act), what == "purge")
        for what, act in FILES.items()
    ),
    *(
        Script(f"{what} another's note", partial(_with_note, act=act))
        for what, act in NOTES.items()
    ),
    Script("link notes of another owner", _note_of_another_owner),
    *(
        Script(f"{what} another's context", partial(_with_context, act=act))
        for what, act in CONTEXTS.items()
    ),
    Script("restore a snapshot of another owner", _snapshot_of_another_owner),
    *(
        Script(f"{what} another's child", partial(_with_process, act=act))
        for what, act in PROCESSES.items()
    ),
    Script("wait for another's child", _wait_for_anothers),
    Script("withdraw another's tool", _withdraw_anothers_tool),
)
