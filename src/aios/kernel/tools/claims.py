"""The async shell of `conflicts.py`: a call of a tool waits here, parked, until nothing that runs is in its way."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from aios.abi.tools import ToolKind
from aios.abi.types import Pid
from aios.errors import ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.process import Run
from aios.kernel.tools.conflicts import Claim, Conflicts
from aios.kernel.tools.footprint import Footprint, shown
from aios.kernel.tools.tool import Tool


class Claims:
    """Hands out claims to calls of tools."""

    def __init__(self, clock: Clock, max_waiting: int) -> None:
        self._clock = clock
        self._core = Conflicts(max_waiting)
        self._begins: dict[int, anyio.Event | None] = {}
        """Those that run or wait; None: it never had to wait."""
        self._last_id = 0

    @asynccontextmanager
    async def hold(self, run: Run, tool: Tool, footprint: Footprint) -> AsyncIterator[None]:
        """Hold a footprint and a place of the tool for the length of the block; waits for them.

        A tool of the kernel's own has places for each family of processes (a child of init and all that it started).

        A process that was stopped meanwhile gives back what it got and queues again when it goes on: what is held by
        nobody who acts keeps others out for nothing.

        Raises:
            ResourceExhausted: Too many calls wait already.
        """
        pid, limit, family = run.process.pid, tool.traits.max_parallel, ""
        if tool.kind is ToolKind.BUILTIN:
            family = run.process.family
        while True:
            self._last_id += 1
            claim = Claim(self._last_id, pid, tool.name, footprint, limit, family)
            try:
                await self._wait(run, claim)
                if not run.process.is_stopped:
                    yield
                    return
            finally:
                self._leave(claim)
            await run.runnable()

    def forget(self, pid: Pid) -> None:
        """A process has ended."""
        self._core.forget(pid)

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """For each tool that is used how many calls run and how many wait."""
        return self._core.counts()

    def check_invariants(self) -> None:
        """Raise AssertionError if the core contradicts itself or the shell."""
        self._core.check_invariants()

    async def _wait(self, run: Run, claim: Claim) -> None:
        begun = self._core.arrive(claim, self._clock.now_s())
        if begun is None:
            raise ResourceExhausted(
                "too many calls of tools wait already",
                hint="try again later, or raise tools.max_waiting",
                retry_after_s=1.0,
            )
        if claim.id in begun:
            begun.remove(claim.id)
            self._begins[claim.id] = None
            self._tell(begun)
            return
        begin = self._begins[claim.id] = anyio.Event()
        self._tell(begun)
        run.detail = f"{run.detail}, waits{self._why(claim)}"
        run.waiting_since_s = self._clock.now_s()
        try:
            with run.parked():
                await begin.wait()
        finally:
            run.waited_s += self._clock.now_s() - run.waiting_since_s
            run.waiting_since_s = None
            run.detail = claim.tool

    def _leave(self, claim: Claim) -> None:
        if claim.id in self._begins:
            del self._begins[claim.id]
            self._tell(self._core.leave(claim.id, self._clock.now_s()))

    def _tell(self, begun: list[int]) -> None:
        for claim_id in begun:
            begin = self._begins[claim_id]
            assert begin is not None, "it had begun already"
            begin.set()

    def _why(self, claim: Claim) -> str:
        """What a call waits for, for `ps`."""
        blockers = self._core.blockers(claim.id)
        if not blockers:
            return ""
        other = blockers[0]
        keys = sorted(
            (claim.footprint.writes | claim.footprint.reads)
            if claim.footprint.conflicts(other.footprint)
            else ()
        )
        return f" for {shown(keys[0]) if keys else claim.tool} (process {other.pid})"
