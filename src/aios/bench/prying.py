"""Every system call with whatever arguments, by three agents at each other's secrets, and at those of a program and of its fork.

Of each agent there are files, notes, records, mail, contexts and logs that hold a word which nobody else may ever be told.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import msgspec
from msgspec import inspect

from aios.abi.call import Answer, Call
from aios.abi.calls import Chat, ExitSelf, Log
from aios.abi.contexts import ContextOpen
from aios.abi.gate import fault_of
from aios.abi.interactions import MemoryLog
from aios.abi.links import FileLink
from aios.abi.mail import Send
from aios.abi.memory import Remember, Scope
from aios.abi.storage import Copy, FileDraft, FileEdit, FileShare, Move, Put
from aios.abi.tools import ToolRun
from aios.abi.types import Message, Pid, Right, Role
from aios.bench.children import BenchFailed
from aios.config import Config, EngineConfig, Home, MemoryConfig, ServerConfig
from aios.configload import Loaded
from aios.engine.pattern import text_of_pattern
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.syscall import TABLE
from aios.sdk.client import Client
from aios.server.daemon import open_server

LONGEST_CALL_S, HANGS_S = 0.05, 30.0
NAMES = ("ann", "bob", "eve")
PROGRAM, FORK = "agent", "agent-fork"
DATA = {Right.FILE_READ, Right.FILE_WRITE, Right.MEMORY_READ, Right.MEMORY_WRITE}
"""Calls with these are tried more often."""
NOT_TRIED = {ExitSelf}
"""It ends the caller."""

PATHS = {"path", "source", "target", "under", "left", "right", "after", "folder"}
QUERIES = {"query", "keywords"}
GRANTEES = ("/agents/ann", "bob", "/agents/eve", "/groups/owner", "nobody")
PLAIN = ("boat", "s/a", "said", "a", "1", "shared", "auto", "0" * 16, "0" * 32, "Kind::guest")


def secret(name: str) -> str:
    """A word that only that agent, or group, may ever read."""
    return f"zq{name}hidden"


HIDING = """\
import sys
from aios.sdk.blocking import connect
with connect() as client:
    secret = sys.argv[1]
    client.files.write("private/known", b"first")
    client.files.write("private/known", secret.encode())
    client.memory.remember(secret, tags=[secret])
    client.memory.log(secret)
    client.contexts.open(system=secret)
    client.log(secret)
    while True:
        client.mail.receive()
"""


@dataclass
class Pried:
    """What came of it: how often each call was tried, and what went wrong."""

    tried: Counter[type] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Agent:
    """One of the three: its gate, and what it makes up."""

    def __init__(self, kernel: Kernel, name: str, seed: int) -> None:
        self.name = name
        process = kernel.admit(name)[0] if name == "eve" else None
        self.pid = process.pid if process else kernel.spawn_task(name, _idle)
        self.gate: LocalGate = kernel.gate(self.pid)
        self.others = [each for each in (*NAMES, PROGRAM) if each != name]
        self.draw = random.Random(f"{seed} {name}")  # noqa: S311 - repeatable on purpose
        self.pids: list[Pid] = []

    @property
    def forbidden(self) -> list[bytes]:
        """What it may never be told."""
        group = ["group"] if self.name == "eve" else []
        return [secret(each).encode() for each in [*self.others, *group]]

    async def hide(self) -> None:
        """Put its secret wherever something of its own may be."""
        mine = secret(self.name)
        calls: list[Call[Answer]] = [
            FileEdit((Put(f"private/{mine}", mine.encode()), Put("private/known", b"first"))),
            FileEdit((Put("private/known", mine.encode() + b"\nsecond line"),)),
            FileDraft(mine.encode()),
            *(Remember(mine, scope=scope, tags=(mine,)) for scope in (Scope.AGENT, Scope.PROCESS)),
            MemoryLog(mine),
            Log(mine),
            ContextOpen(messages=(Message(Role.USER, mine),)),
            Send(to=self.pid, body=mine),
            Chat(messages=(Message(Role.USER, mine),), max_tokens=2),
        ]
        if self.name == "ann":
            calls += [
                FileEdit((Put("/groups/owner/known", secret("group").encode()),)),
                Remember(secret("group"), scope=Scope.GROUP),
            ]
        for call in calls:
            await self.gate.call(call)

    async def ask(self, call: Call[Answer]) -> list[bytes]:
        """All that a call brings, frame by frame, as bytes."""
        told: list[bytes] = []
        with anyio.move_on_after(HANGS_S) as scope:
            try:
                async with self.gate.open_call(call) as frames:
                    told += [msgspec.msgpack.encode(frame) async for frame in frames]
                    told.append(msgspec.msgpack.encode((await frames.result()).value))
            except AiosError as error:
                told.append(msgspec.msgpack.encode(fault_of(error)))
        if scope.cancelled_caught:
            raise BenchFailed(f"{call} of {self.name} never ended")
        return told

    # --- making calls up -----------------------------------------------------------------------------------------

    def make(self, kind: type[Call[Answer]]) -> Call[Answer]:
        """A call of that kind that the wire would let through."""
        for _ in range(200):
            try:
                made = msgspec.convert(self._struct(inspect.type_info(kind)), kind)
            except msgspec.ValidationError:
                continue
            if not self._gives_away(made):
                return msgspec.structs.replace(made, deadline_s=LONGEST_CALL_S)
        raise BenchFailed(f"{kind.__name__} could not be made up")

    def run_tool(self) -> ToolRun:
        """A tool at the files and notes of others."""
        path = self.draw.choice(self._paths())
        runs: list[tuple[str, dict[str, object]]] = [
            ("files", {"action": self.draw.choice(["read", "list"]), "path": path}),
            ("search_files", {"words": "hidden", "path": path}),
            ("memory", {"action": "recall", "text": "hidden"}),
        ]
        name, arguments = self.draw.choice(runs)
        return ToolRun(name, arguments, deadline_s=LONGEST_CALL_S)

    def _gives_away(self, call: Call[Answer]) -> bool:
        """Whether it hands out what is its own to give: then another may read it."""
        mine = f"/agents/{self.name}/private"
        if isinstance(call, FileShare | FileLink):
            return call.path in {
                "",
                "/",
                "/agents",
                f"/agents/{self.name}",
            } or call.path.startswith(mine)
        return isinstance(call, FileEdit) and any(
            isinstance(edit, Copy | Move)
            and not edit.source.startswith(("/shared", "s/", "/agents/", "\N{FULLWIDTH SOLIDUS}"))
            for edit in call.edits
        )

    def _paths(self) -> list[str]:
        other = self.draw.choice(self.others)
        theirs = f"/agents/{other}/private/known"
        hostile = [
            theirs,
            f"/agents/{other}",
            f"/agents/{other}/private",
            "/agents",
            "/",
            f"../{other}/private/known",
        ]
        hostile += [
            f"/agents/{self.name}/../{other}/private/known",
            theirs.replace("/", "\N{FULLWIDTH SOLIDUS}"),
        ]
        hostile += [f"//agents/./{other}//private/known", f"/agents/{FORK}/private/known"]
        if self.name == "eve":
            hostile += ["/groups/owner/known", "/groups/owner", "/groups"]
        mine = ["s/a", "s/b", "/shared/a", "/shared/b"]
        return [self.draw.choice([theirs, *hostile]) for _ in range(6)] + mine

    def _struct(self, info: inspect.Type) -> dict[str, object]:
        assert isinstance(info, inspect.StructType)
        made = {
            each.encode_name: self._value(each.name, each.type)
            for each in info.fields
            if each.required or self.draw.random() < 0.6
        }
        if info.tag_field is not None:
            made[info.tag_field] = info.tag
        return made

    def _value(self, name: str, kind: inspect.Type) -> object:
        draw = self.draw
        match kind:
            case inspect.StrType():
                return self._text(name, kind)
            case inspect.IntType() | inspect.FloatType() | inspect.BoolType():
                return self._number(name, kind)
            case inspect.BytesType():
                return b"boat"
            case inspect.EnumType():
                return draw.choice([each.value for each in kind.cls])
            case inspect.LiteralType():
                return draw.choice(kind.values)
            case inspect.UnionType():
                return self._value(name, draw.choice(kind.types))
            case inspect.VarTupleType() | inspect.ListType():
                return [self._value(name, kind.item_type) for _ in range(draw.randint(0, 2))]
            case inspect.StructType():
                return self._struct(kind)
            case inspect.DictType():
                return {}
            case _:
                return None

    def _text(self, name: str, kind: inspect.StrType) -> str:
        if name in PATHS:
            return self.draw.choice(self._paths())
        if name == "grantee":
            return self.draw.choice(GRANTEES)
        words = [*PLAIN, *map(secret, self.others)] if name in QUERIES else PLAIN
        fitting = [each for each in words if re.search(kind.pattern or "", each)]
        return self.draw.choice(fitting or [text_of_pattern(_plain(kind.pattern or ""))])

    def _number(
        self, name: str, kind: inspect.IntType | inspect.FloatType | inspect.BoolType
    ) -> float:
        match kind:
            case inspect.IntType() if "pid" in name or name == "to":
                return self.draw.choice([*self.pids, 1, 99])
            case inspect.IntType():
                least = max(kind.ge or 0, 0)
                return self.draw.randint(least, min(kind.le or least + 12, least + 12))
            case inspect.FloatType():
                low = kind.ge or 0.001
                return self.draw.uniform(low, min(kind.le or low + 3, low + 3))
            case inspect.BoolType():
                return self.draw.random() < 0.5


def _plain(pattern: str) -> str:
    """A pattern of ours without what says that it is for the whole text."""
    return pattern.replace(r"(?!\n)$", "").removeprefix("^")


async def _idle(_: LocalGate) -> str | None:
    await anyio.sleep_forever()
    return None


async def pry(home: Path, seed: int, n_rounds: int = 1) -> Pried:
    """Try every call `n_rounds` times for each agent, in a kernel of its own whose home has a short path."""
    config = Config(
        engine=EngineConfig(kind="scripted"),
        memory=MemoryConfig(embedder="none"),
        server=ServerConfig(port=0),
    )
    loaded = Loaded(config, Home(home), home / "config.toml")
    engines = {"local": ScriptedEngine()}
    async with open_server(loaded, http=False, engines=engines, is_durable=True) as kernel:
        programs = await _start_programs(kernel, home)
        agents = [Agent(kernel, name, seed) for name in NAMES]
        for agent in agents:
            await agent.hide()
        for agent in agents:
            agent.pids = [*(other.pid for other in agents if other is not agent), *programs]
        pried = await _try_all(agents, random.Random(seed), n_rounds)  # noqa: S311 - repeatable on purpose
        pids = [*(agent.pid for agent in agents), *programs]
        pried.faults += await _harm(kernel, pids)
    return pried


async def _try_all(agents: list[Agent], draw: random.Random, n_rounds: int) -> Pried:
    """Every call in whatever order."""
    kinds = [kind for kind in TABLE if kind not in NOT_TRIED]
    kinds += 5 * [kind for kind in kinds if TABLE[kind].right in DATA]
    plan = [(agent, kind) for agent in agents for kind in kinds] * n_rounds
    draw.shuffle(plan)
    pried = Pried()
    for agent, kind in plan:
        call = agent.run_tool() if kind is ToolRun else agent.make(kind)
        told = b" ".join(await agent.ask(call))
        pried.faults += [
            f"{agent.name} was told {word!r} by {call}" for word in agent.forbidden if word in told
        ]
        pried.tried[kind] += 1
    return pried


async def _start_programs(kernel: Kernel, home: Path) -> list[Pid]:
    """A program that has hidden its secret, and a fork of it that the owner has made."""
    folder = home / "programs" / PROGRAM
    folder.mkdir(parents=True)
    (folder / "agent.toml").write_text(f'name = "{PROGRAM}"\n')
    (folder / "main.py").write_text(HIDING)
    owner = Client(kernel.init_gate())
    spawned = await owner.spawn(str(folder), secret(PROGRAM))
    await _wait_hidden(kernel, spawned.pid)
    forked = await owner.journal.fork(spawned.pid, name=FORK)
    await _wait_hidden(kernel, forked.pid)
    if await owner.files.read(f"/agents/{FORK}/private/known") != secret(PROGRAM).encode():
        raise BenchFailed("the fork has not the files of its source")
    return [spawned.pid, forked.pid]


async def _wait_hidden(kernel: Kernel, pid: Pid) -> None:
    """Wait until a program waits for mail."""
    process = kernel.table.get(pid)
    with anyio.fail_after(HANGS_S):
        while not any(run.name == "receive" for run in process.runs.values()):  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(0.01)


async def _harm(kernel: Kernel, pids: list[Pid]) -> list[str]:
    """What was changed that is another's, and who was ended."""
    faults = [f"process {pid} was ended" for pid in pids if not kernel.table.get(pid).is_alive]
    authors = await kernel.db.read(
        lambda c: list(
            c.execute("SELECT DISTINCT path, author FROM versions WHERE path GLOB '/agents/*'")
        )
    )
    faults += [
        f"{author} changed {path}"
        for path, author in authors
        if not str(path).startswith(f"{author}/")
    ]
    spaces = await kernel.db.read(
        lambda c: list(
            c.execute(
                "SELECT s.name, n.name FROM memory_notes n JOIN memory_spaces s ON s.id = n.space WHERE s.scope = 'agent'"
            )
        )
    )
    faults += [f"{writer} wrote to {space}" for space, writer in spaces if space != writer]
    return faults
