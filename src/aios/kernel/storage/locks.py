"""Advisory locks of paths, with leases. They live in memory: whoever held one ended with the kernel."""

import anyio
from msgspec import Struct

from aios.abi.storage import FileLock
from aios.abi.types import Pid
from aios.errors import Conflict
from aios.kernel.clock import Clock
from aios.kernel.process import Run


class Lease(Struct, frozen=True):
    """Who has a lock, and until when on the kernel's clock."""

    pid: Pid
    until_s: float


class Locks:
    """The locks of all paths."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, Lease] = {}
        self._freed = anyio.Event()

    async def acquire(self, run: Run, path: str, call: FileLock) -> None:
        """Take or prolong a lock, waiting until it is free.

        Raises:
            Conflict: Another process has it, and the call does not wait.
        """
        while True:
            now_s = self._clock.now_s()
            lease = self._leases.get(path)
            if lease is None or lease.pid == run.process.pid or lease.until_s <= now_s:
                self._leases[path] = Lease(run.process.pid, now_s + call.lease_s)
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
        lease = self._leases.get(path)
        if lease is not None and lease.pid == pid:
            del self._leases[path]
            self._wake()

    def close(self, pid: Pid) -> None:
        """A process has ended: its locks are free."""
        mine = [path for path, lease in self._leases.items() if lease.pid == pid]
        for path in mine:
            del self._leases[path]
        if mine:
            self._wake()

    def _wake(self) -> None:
        self._freed.set()
        self._freed = anyio.Event()
