"""Advisory locks of paths, with leases. They live in memory: whoever held one ended with the kernel."""

import anyio
from msgspec import Struct

from aios.abi.storage import FileLock
from aios.abi.types import Pid
from aios.errors import Conflict, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.process import Run

MAX_LOCKS = 1_000
"""Of one process at a time."""


class Lease(Struct, frozen=True):
    """Who has a lock, and until when on the kernel's clock."""

    pid: Pid
    until_s: float


class Locks:
    """The locks of all paths."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, Lease] = {}
        self._paths: dict[Pid, set[str]] = {}
        self._freed = anyio.Event()

    async def acquire(self, run: Run, path: str, call: FileLock) -> None:
        """Take or prolong a lock, waiting until it is free.

        Raises:
            Conflict: Another process has it, and the call does not wait.
            ResourceExhausted: The process holds too many.
        """
        while True:
            now_s = self._clock.now_s()
            lease = self._leases.get(path)
            if lease is None or lease.pid == run.process.pid or lease.until_s <= now_s:
                self._check_room(run.process.pid, path, now_s)
                self._drop(path)
                self._leases[path] = Lease(run.process.pid, now_s + call.lease_s)
                self._paths.setdefault(run.process.pid, set()).add(path)
                return
            left_s = lease.until_s - now_s
            if not call.is_waiting:
                raise Conflict(
                    f"process {lease.pid} has the lock of {path} for {left_s:.0f} s more",
                    hint="wait for it, or ask that process",
                    retry_after_s=left_s,
                )
            freed = self._freed
            with run.parked(), anyio.move_on_after(left_s):
                await freed.wait()
            await run.runnable()

    def release(self, pid: Pid, path: str) -> None:
        """Give a lock back, if it is this process's."""
        if path in self._paths.get(pid, ()):
            self._drop(path)
            self._wake()

    def close(self, pid: Pid) -> None:
        """A process has ended: its locks are free."""
        mine = list(self._paths.get(pid, ()))
        for path in mine:
            self._drop(path)
        if mine:
            self._wake()

    def _check_room(self, pid: Pid, path: str, now_s: float) -> None:
        mine = self._paths.get(pid, set())
        if path in mine or len(mine) < MAX_LOCKS:
            return
        for each in list(mine):
            if self._leases[each].until_s <= now_s:
                self._drop(each)
        if len(mine) >= MAX_LOCKS:
            raise ResourceExhausted(
                f"process {pid} holds {len(mine)} locks, which is the limit",
                hint="give one back (`file_unlock`), or lock a folder instead of each file in it",
            )

    def _drop(self, path: str) -> None:
        """Nobody has the lock of a path."""
        lease = self._leases.pop(path, None)
        if lease is not None:
            mine = self._paths[lease.pid]
            mine.remove(path)
            if not mine:
                del self._paths[lease.pid]

    def _wake(self) -> None:
        self._freed.set()
        self._freed = anyio.Event()
