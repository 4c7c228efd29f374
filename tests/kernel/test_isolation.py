"""Every system call with whatever arguments, by three agents at each other's secrets. `AIOS_TEST_ROUNDS=100` makes it long; the seed stands in
the message of a failure.
"""

import os
import random
import re
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import pytest
from msgspec import inspect

from aios.abi.call import Answer, Call
from aios.abi.calls import Chat, ExitSelf, Log
from aios.abi.contexts import ContextOpen
from aios.abi.fork import Fork
from aios.abi.gate import fault_of
from aios.abi.interactions import MemoryLog
from aios.abi.links import FileLink
from aios.abi.mail import Send
from aios.abi.memory import Remember, Scope
from aios.abi.storage import Copy, FileDraft, FileEdit, FileShare, Move, Put
from aios.abi.tools import ToolRun
from aios.abi.types import Message, Pid, Right, Role
from aios.config import Config, Home, MemoryConfig
from aios.engine.pattern import text_of_pattern
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.syscall import TABLE

N_ROUNDS = int(os.environ.get("AIOS_TEST_ROUNDS", "1"))
LONGEST_CALL_S, HANGS_S = 0.05, 30.0
NAMES = ("ann", "bob", "eve")
DATA = {Right.FILE_READ, Right.FILE_WRITE, Right.MEMORY_READ, Right.MEMORY_WRITE}
"""Calls with these are tried more often."""
NOT_TRIED = {ExitSelf, Fork}
"""One ends the caller; the other takes a program that the journal on disk knows."""

PATHS = {"path", "source", "target", "under", "left", "right", "after", "folder"}
QUERIES = {"query", "keywords"}
PLAIN = ("boat", "s/a", "said", "a", "1", "shared", "auto", "0" * 16, "0" * 32, "Kind::guest")


def secret(name: str) -> str:
    """A word that only that agent, or group, may ever read."""
    return f"zq{name}hidden"


class Agent:
    """One of the three: its gate, and what it makes up."""

    def __init__(self, kernel: Kernel, name: str, seed: int) -> None:
        self.name = name
        process = kernel.admit(name)[0] if name == "eve" else None
        self.pid = process.pid if process else kernel.spawn_task(name, _idle)
        self.gate: LocalGate = kernel.gate(self.pid)
        self.others = [each for each in NAMES if each != name]
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
        assert not scope.cancelled_caught, f"{call} of {self.name} never ended"
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
        raise AssertionError(f"{kind.__name__} could not be made up")

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
        hostile += [f"//agents/./{other}//private/known"]
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
            case inspect.StrType() if name in PATHS:
                return draw.choice(self._paths())
            case inspect.StrType() if name == "grantee":
                return draw.choice(["/agents/ann", "bob", "/agents/eve", "/groups/owner", "nobody"])
            case inspect.StrType():
                words = [*PLAIN, *map(secret, self.others)] if name in QUERIES else PLAIN
                fitting = [each for each in words if re.search(kind.pattern or "", each)]
                return draw.choice(fitting or [text_of_pattern(plain(kind.pattern or ""))])
            case inspect.IntType() if "pid" in name or name == "to":
                return draw.choice([*self.pids, 1, 99])
            case inspect.IntType():
                least = max(kind.ge or 0, 0)
                return draw.randint(least, min(kind.le or least + 12, least + 12))
            case inspect.FloatType():
                low = kind.ge or 0.001
                return draw.uniform(low, min(kind.le or low + 3, low + 3))
            case inspect.BoolType():
                return draw.random() < 0.5
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


def plain(pattern: str) -> str:
    """A pattern of ours without what says that it is for the whole text."""
    return pattern.replace(r"(?!\n)$", "").removeprefix("^")


async def _idle(_: LocalGate) -> str | None:
    await anyio.sleep_forever()
    return None


@pytest.mark.anyio
async def test_no_call_ever_tells_one_agent_what_is_private_to_another(tmp_path: Path) -> None:
    seed = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**9))
    tried: Counter[type] = Counter()
    config = Config(memory=MemoryConfig(embedder="none"))
    async with open_kernel(config, Home(tmp_path), engines={"local": ScriptedEngine()}) as kernel:
        agents = [Agent(kernel, name, seed) for name in NAMES]
        draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        for agent in agents:
            await agent.hide()
        for agent in agents:
            agent.pids = [other.pid for other in agents if other is not agent]
        kinds = [kind for kind in TABLE if kind not in NOT_TRIED]
        kinds += 5 * [kind for kind in kinds if TABLE[kind].right in DATA]
        plan = [(agent, kind) for agent in agents for kind in kinds] * N_ROUNDS
        draw.shuffle(plan)
        for agent, kind in plan:
            call = agent.make(kind)
            if isinstance(call, ToolRun):
                call = tool_run(agent)
            for told in await agent.ask(call):
                for word in agent.forbidden:
                    assert word not in told, (
                        f"{agent.name} was told {word!r} by {call} with seed {seed}"
                    )
            tried[kind] += 1
        assert tried.keys() | NOT_TRIED == TABLE.keys()
        await assert_own(kernel, agents, seed)


def tool_run(agent: Agent) -> ToolRun:
    """A tool at the files and notes of others."""
    path = agent.draw.choice(agent._paths())
    runs: list[tuple[str, dict[str, object]]] = [
        ("files", {"action": agent.draw.choice(["read", "list"]), "path": path}),
        ("search_files", {"words": "hidden", "path": path}),
        ("memory", {"action": "recall", "text": "hidden"}),
    ]
    name, arguments = agent.draw.choice(runs)
    return ToolRun(name, arguments, deadline_s=LONGEST_CALL_S)


async def assert_own(kernel: Kernel, agents: list[Agent], seed: int) -> None:
    """Nobody has changed what is another's, or ended another."""
    for agent in agents:
        assert kernel.table.get(agent.pid).is_alive, f"{agent.name} was ended, with seed {seed}"
    authors = await kernel.db.read(
        lambda c: list(
            c.execute("SELECT DISTINCT path, author FROM versions WHERE path GLOB '/agents/*'")
        )
    )
    for path, author in authors:
        assert str(path).startswith(f"{author}/"), f"{author} changed {path} with seed {seed}"
    spaces = await kernel.db.read(
        lambda c: list(
            c.execute(
                "SELECT s.name, n.name FROM memory_notes n JOIN memory_spaces s ON s.id = n.space WHERE s.scope = 'agent'"
            )
        )
    )
    assert all(space == writer for space, writer in spaces), f"seed {seed}: {spaces}"
