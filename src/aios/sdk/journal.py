"""The journal: `client.journal.read(pid)`, `client.journal.events(after)`, `client.journal.fork(pid, at=...)`, and the same for plain code."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aios.abi.budget import Limits
from aios.abi.fork import Fork, Forked
from aios.abi.journal import EventList, Events, JournalRead, JournalRecords
from aios.abi.types import Pid
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Journal:
    """What the processes that a client may see asked of the kernel, and what came of it."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def read(
        self, pid: int, *, after: int = 0, limit: int = 1_000, is_full: bool = False
    ) -> JournalRecords:
        """A page of the records of a process, behind record `after`; a negative one counts from the end.

        Args:
            pid: The process.
            after: The `next_seq` of the page before.
            limit: Records on the page; a page of long ones may have fewer.
            is_full: With what was asked and answered.

        Raises:
            AccessDenied: The process is neither the caller nor a descendant of it.
            NotFound: No such process.
        """
        call = build(JournalRead, pid=Pid(pid), after=after, limit=limit, is_full=is_full)
        return (await self._gate.call(call)).value

    async def events(
        self,
        *,
        after: int | None = None,
        pid: int | None = None,
        is_waiting: bool = True,
        has_text: bool = False,
        deadline_s: float | None = None,
    ) -> EventList:
        """Events behind number `after`, or from now on; `last` of the list is the `after` of the next call.

        Raises:
            DeadlineExceeded: Nothing happened within `deadline_s` seconds.
        """
        target = None if pid is None else Pid(pid)
        call = build(
            Events,
            after=after,
            pid=target,
            is_waiting=is_waiting,
            has_text=has_text,
            deadline_s=deadline_s,
        )
        return (await self._gate.call(call)).value

    async def fork(
        self,
        pid: int,
        *,
        at: int | None = None,
        instruction: str = "",
        name: str | None = None,
        budget: Limits | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Forked:
        """Branch a program off behind one of its calls; returns when the branch is on disk, and its program about to start. See the call `fork`.

        Args:
            pid: The process, living or ended.
            at: The last call that both have in common; its last one that ended when None, 0 is before the first.
            instruction: What each chat of the branch ends with, behind `at`.
            name: Its name.
            budget: What it may spend; what the process has left of its own limits when None.
            env: Its environment, where the kernel no longer has it.

        Raises:
            Conflict: The process is the caller, no program, or the kernel keeps no journal on disk.
            NotFound: No such process or call.
        """
        call = fork_call(pid, at, instruction=instruction, name=name, budget=budget, env=env)
        return (await self._gate.call(call)).value


class BlockingJournal:
    """`Journal` for code that waits."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def read(
        self, pid: int, *, after: int = 0, limit: int = 1_000, is_full: bool = False
    ) -> JournalRecords:
        """A page of the records of a process; see `Journal.read`."""
        call = build(JournalRead, pid=Pid(pid), after=after, limit=limit, is_full=is_full)
        return self._gate.call(call).value

    def events(
        self,
        *,
        after: int | None = None,
        pid: int | None = None,
        is_waiting: bool = True,
        has_text: bool = False,
        deadline_s: float | None = None,
    ) -> EventList:
        """Events behind number `after`, or from now on; see `Journal.events`."""
        target = None if pid is None else Pid(pid)
        call = build(
            Events,
            after=after,
            pid=target,
            is_waiting=is_waiting,
            has_text=has_text,
            deadline_s=deadline_s,
        )
        return self._gate.call(call).value

    def fork(
        self,
        pid: int,
        *,
        at: int | None = None,
        instruction: str = "",
        name: str | None = None,
        budget: Limits | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Forked:
        """Branch a program off behind one of its calls; see `Journal.fork`."""
        call = fork_call(pid, at, instruction=instruction, name=name, budget=budget, env=env)
        return self._gate.call(call).value


def fork_call(
    pid: int,
    at: int | None,
    *,
    instruction: str,
    name: str | None,
    budget: Limits | None,
    env: Mapping[str, str] | None,
) -> Fork:
    """The call `fork` from arguments."""
    return build(
        Fork,
        pid=Pid(pid),
        at=at,
        instruction=instruction,
        name=name,
        budget=budget,
        env=dict(env or {}),
    )
