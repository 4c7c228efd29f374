"""What the kernel knows of one tool, and the contract of what carries it out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

import msgspec
from msgspec import Struct

from aios import __version__
from aios.abi.call import Answer, Call
from aios.abi.gate import Advance, Gate
from aios.abi.tools import ToolInfo, ToolKind, Traits
from aios.abi.types import JsonObject, Pid
from aios.kernel.journal.records import AGAIN, UNDO
from aios.kernel.process import Run
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.footprint import Footprint, footprint
from aios.kernel.tools.schema import Schema

A = TypeVar("A", bound=Answer)

VERSION_CHARS = 16


class Job(Struct, frozen=True):
    """One run of a tool: for whom, and with which checked arguments."""

    run: Run
    arguments: JsonObject
    gate: Gate
    """The caller's own door: what a tool asks here is journalled, checked and accounted as the caller's."""
    timeout_s: float

    async def call(self, call: Call[A]) -> A:
        """Make a system call as the caller. It is a run of its own; this one is parked meanwhile.

        Raises:
            AiosError: The call failed.
        """
        emit = self.run.emit
        with self.run.parked():
            if emit is None:
                result = await self.gate.call(call)
            else:
                async with self.gate.open_call(call) as frames:
                    async for frame in frames:
                        if isinstance(frame, Advance):
                            emit(frame)
                    result = await frames.result()
        await self.run.runnable()
        return result.value

    def text(self, name: str, default: str = "") -> str:
        """A string among the arguments."""
        value = self.arguments.get(name, default)
        return value if isinstance(value, str) else default

    def integer(self, name: str, default: int) -> int:
        """An integer among the arguments; JSON's 3.0 is one, too."""
        value = self.arguments.get(name, default)
        return int(value) if isinstance(value, int | float) else default


Body = Callable[[Job], Awaitable[Outcome]]
"""Carries out a job. Raises an `AiosError` if it cannot; being cancelled, it leaves nothing that still acts."""

Trace = Callable[[JsonObject, str], Footprint]
"""The footprint of a call, from its arguments and the caller's folder."""


@dataclass(eq=False)
class Tool:
    """One tool: what it says of itself, and what carries it out."""

    name: str
    kind: ToolKind
    description: str
    body: Body
    parameters: Schema
    returns: Schema | None = None
    traits: Traits = Traits()
    provider: Pid | None = None
    before: Callable[[Run], Awaitable[None]] | None = None
    """What is to be ready, or asked, before a call of it begins."""
    trace: Trace | None = None
    """For a tool of the kernel's own whose footprint depends on more than templates say."""
    definition: object = None
    """What else makes it another tool when it changes: a manifest, a server."""
    digest: str = field(init=False)
    """Of all that it says of itself; answers of humans are bound to it."""
    size_bytes: int = field(init=False)
    """Of the same, as JSON."""
    is_open: bool = False
    """It brings what nobody here has written: of the web, of programs, of servers."""
    acts_by_calls: bool = False
    """All that it does are calls of its caller's, which are in the journal, so one that was cut off goes on where it was."""
    taint: str = ""
    """Where data came from outside that had reached who registered it."""
    n_runs: int = 0
    n_failed: int = 0

    def __post_init__(self) -> None:
        said = (
            self.name,
            self.kind,
            self.description,
            self.parameters.schema,
            self.returns.schema if self.returns is not None else None,
            self.traits,
            self.provider,
            self.definition,
            __version__,
        )
        text = msgspec.json.encode(said, order="deterministic")
        self.size_bytes = len(text)
        self.digest = blake2b(text, digest_size=32).hexdigest()

    @property
    def is_compiled(self) -> bool:
        """Whether values are checked against its schemas at once."""
        return self.parameters.is_compiled and (self.returns is None or self.returns.is_compiled)

    def compile(self) -> None:
        """Make its schemas ready.

        Raises:
            InvalidCall: One of them is none.
        """
        self.parameters.check()
        if self.returns is not None:
            self.returns.check()

    @property
    def cure(self) -> str:
        """What is done about a call of it that is cut off, as the journal notes it."""
        if self.acts_by_calls or self.traits.is_idempotent:
            return AGAIN
        return f"{UNDO}{self.traits.undo}" if self.traits.undo else ""

    @property
    def asked(self) -> JsonObject:
        """The schema of what its callers give: the key is the kernel's to fill in."""
        schema, key = self.parameters.schema, self.traits.key
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, dict) or key not in properties:
            return schema
        asked = {**schema, "properties": {n: part for n, part in properties.items() if n != key}}
        if isinstance(required, list):
            asked["required"] = [name for name in required if name != key]
        return asked

    def with_key(self, arguments: JsonObject, key: str) -> JsonObject:
        """Arguments with the key in the place that the tool names for it, whatever the caller put there."""
        return {**arguments, self.traits.key: key} if self.traits.key else arguments

    @property
    def version(self) -> str:
        """Its digest, as much of it as a reader can compare."""
        return self.digest[:VERSION_CHARS]

    def footprint(self, arguments: JsonObject, home: str) -> Footprint:
        """What a call with these arguments reads and writes."""
        if self.trace is not None:
            return self.trace(arguments, home)
        return footprint(self.traits.reads, self.traits.writes, arguments, home)

    def info(self, n_running: int = 0, n_waiting: int = 0) -> ToolInfo:
        """The tool as others see it."""
        return ToolInfo(
            name=self.name,
            kind=self.kind,
            description=self.description,
            parameters=self.asked,
            returns=self.returns.schema if self.returns is not None else None,
            traits=self.traits,
            version=self.version,
            provider=self.provider,
            n_running=n_running,
            n_waiting=n_waiting,
            n_runs=self.n_runs,
            n_failed=self.n_failed,
        )
