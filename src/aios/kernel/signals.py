"""Signals and the ends of processes: kill, stop, cont, exit, and what follows from them.

`kill` and `stop` act at once on the whole tree (no new calls, no turns, the operating-system processes signalled) and then
wait until no call of the tree acts any more; so when they return, nothing the tree asked for takes effect.
"""

from collections.abc import Callable, Sequence

import anyio
from msgspec import Struct

from aios.abi.calls import Nice, Niced
from aios.abi.types import Exit, Kind, Pid
from aios.errors import AccessDenied, Conflict
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.scheduler.scheduler import Scheduler

KILLED_STATUS = 137
"""128 + SIGKILL, as shells have it."""
TERMINATED_STATUS = 143
STILL_S, LOOK_S, LONGEST_LOOK_S = 2.0, 0.002, 0.1
"""How long `stop` waits at most until nothing runs, between the first two looks and between later ones: what hangs in a disk cannot even be
stopped, nor what waits in `vfork` for a child that is."""
KERNEL_ENDED = Exit(KILLED_STATUS, "the kernel ended")
"""How a process ends that ends with a kernel which shuts down. On disk it has not: the next kernel decides what becomes of it."""


class Signals(Struct, frozen=True):
    """What can be done to processes."""

    table: ProcessTable
    scheduler: Scheduler
    on_change: Callable[[Process], None] = lambda _: None
    """Told who was stopped, let go on, made nicer or asked to end."""

    async def kill(self, target: Process, *, reason: str, by: Run | None = None) -> list[Pid]:
        """End a process and its descendants.

        Raises:
            AccessDenied: The target is init.
            Conflict: It has ended already.
        """
        self._check(target, "kill")
        tree = self.table.tree(target)
        for process in tree:
            if process.on_kill is not None:  # first: its end lets it go on where it is stopped
                process.on_kill()
            self.begin_end(process, Exit(KILLED_STATUS, reason or "killed"), but=by)
        for process in reversed(tree):
            self.settle(process)
            if by is None or by.process is not process:
                await process.wait_ended()
        return [process.pid for process in tree]

    async def put_away(self, process: Process, reason: str = KERNEL_ENDED.reason) -> None:
        """End a process and all below it, also one that is ending already; returns when it has ended."""
        if process.exiting is None or is_leaving(process):
            await self.kill(process, reason=reason)
            return
        if process.on_kill is not None:
            process.on_kill()
        await process.wait_ended()

    async def end_children(self, process: Process) -> None:
        """End what a program has started: it begins from the beginning, will start its own, and waits for none of these."""
        for child in self.table.tree(process)[1:]:
            if child.is_alive:
                await self.put_away(child, f"process {process.pid} began anew")
        for pid in process.children:
            child = self.table.get(pid)
            if not child.is_waited_for:
                child.is_waited_for = True
                self.on_change(child)

    async def stop(self, target: Process, *, by: Run | None = None) -> list[Pid]:
        """Hold a process and its descendants, and what they were about to start; those that are stopped already stay so.

        Raises:
            AccessDenied: The target is init.
            Conflict: It has ended.
        """
        self._check(target, "stop")
        held: dict[Pid, Process] = {}
        new = self.table.tree(target)
        while new:
            for process in new:
                self.hold(process)
                held[process.pid] = process
            for process in new:
                await process.wait_quiet(by)
            more = (each for each in self.table.tree(target) if each.pid not in held)
            new = [each for each in more if self.table.get(each.ppid).is_stopped]  # not let go on
        await _wait_still(list(held.values()))
        return list(held)

    def hold(self, process: Process, *, is_lasting: bool = True) -> None:
        """Hold one process from now on, without waiting until its calls are quiet; also under the next kernel, if `is_lasting`."""
        process.stays_stopped = process.n_freezes > 0
        process.set_stopped(True)
        process.is_held = not is_lasting
        self.on_change(process)
        self.scheduler.hold(process.pid)
        if process.on_stop is not None:
            process.on_stop(True)
        _hold_runs(process, True)

    def cont(self, target: Process) -> list[Pid]:
        """Let a process and its descendants go on; those that are not stopped just do.

        Raises:
            AccessDenied: The target is init.
            Conflict: It has ended.
        """
        self._check(target, "continue")
        tree = self.table.tree(target)
        for process in tree:
            self.let_go(process)
        return [process.pid for process in tree]

    def freeze(self, process: Process) -> None:
        """Hold a process until `thaw`, as `hold` does for a moment; whoever lets it go on or stops it meanwhile has his way then."""
        if not process.n_freezes:
            is_stopped = process.is_stopped
            if not is_stopped:
                self.hold(process, is_lasting=False)
            process.stays_stopped = is_stopped
        process.n_freezes += 1

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on, unless it was stopped before or is to be by now."""
        process.n_freezes -= 1
        is_ending = process.exiting is not None and not is_leaving(process)
        if not (process.n_freezes or process.stays_stopped or is_ending):
            self.let_go(process)

    def let_go(self, process: Process) -> None:
        """Let one process go on."""
        if process.n_freezes:
            process.stays_stopped = False
            return
        self._let_go(process)
        _hold_runs(process, False)

    async def nice(self, run: Run, call: Nice) -> Niced:
        """Set how willing a process is to wait; its calls that wait are ranked anew at once.

        Raises:
            AccessDenied: Somebody else than the owner makes a process less nice.
            Conflict: It has ended.
        """
        process = self.table.get(call.pid)
        _check_lives(process)
        if call.nice < process.nice and run.process.pid != INIT_PID:
            raise AccessDenied(
                "only the owner may make a process less nice", hint=f"use nice >= {process.nice}"
            )
        process.nice = call.nice
        self.on_change(process)
        self.scheduler.renice(process.pid, process.nice)
        return Niced(process.pid, process.nice)

    def find_tree(self, target: Process, verb: str) -> list[Process]:
        """A process and its living descendants, who are to be signalled.

        Raises:
            AccessDenied: The target is init.
            Conflict: It has ended already.
        """
        self._check(target, verb)
        return self.table.tree(target)

    def terminate(self, process: Process) -> bool:
        """Ask the program behind a process to end, and do not start it again. Returns: whether there is one."""
        if process.kind is not Kind.PROGRAM:
            return False
        process.is_terminated = True
        self.on_change(process)
        if process.on_terminate is not None:
            process.on_terminate()
        else:  # nothing of it runs: it waits to be started
            self.begin_end(process, Exit(TERMINATED_STATUS, "terminated"))
            if process.on_kill is not None:
                process.on_kill()
        return True

    def begin_end(self, process: Process, end: Exit, *, but: Run | None = None) -> None:
        """From now on the process makes no calls; those in flight, `but` one, are cancelled. One that has just asked to exit ends as it asked, for good."""
        if process.exiting is None:
            process.exiting = end
        elif end.reason and is_leaving(process):
            process.is_terminated = True
        self._cut(process, but=but)

    def settle(self, process: Process) -> None:
        """End the process for good if it is ending, nothing runs behind it and no call of it is in flight."""
        if (
            process.exiting is not None
            and process.exit is None
            and not process.runs
            and not process.has_body
        ):
            self.scheduler.forget(process.pid)
            self.table.end(process, process.exiting)

    def _cut(self, process: Process, *, but: Run | None) -> None:
        """Cancel its calls; a stopped process is let go if it can only end."""
        for run in list(process.runs.values()):
            if run is not but:
                run.scope.cancel()
        process.end_replay()
        if not is_leaving(process):
            self._let_go(process)

    def _let_go(self, process: Process) -> None:
        if process.is_stopped:
            process.set_stopped(False)
            process.is_held = False
            self.on_change(process)
            self.scheduler.unhold(process.pid)
            if process.on_stop is not None:
                process.on_stop(False)

    def _check(self, target: Process, verb: str) -> None:
        if target.pid == INIT_PID:
            raise AccessDenied(f"nobody may {verb} init", hint="`aios shutdown` ends the kernel")
        _check_lives(target)


def is_leaving(process: Process) -> bool:
    """Whether it has asked to exit and its program still runs: with the restart policy `always` that starts again."""
    has_asked = process.exiting is not None and not process.exiting.reason
    return has_asked and process.has_body and not process.is_terminated


async def _wait_still(moving: Sequence[Process]) -> None:
    """Wait until nothing that was started for stopped processes runs: what was in the middle of starting a child when it was stopped does that first."""
    pause_s = LOOK_S
    with anyio.move_on_after(STILL_S):
        while moving := [each for each in moving if each.is_stopped and not _is_still(each)]:
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_LOOK_S)


def _is_still(process: Process) -> bool:
    return all(is_still() for is_still in process.stills)


def _check_lives(process: Process) -> None:
    end = process.exiting
    if end is not None and not is_leaving(process):
        raise Conflict(
            f"process {process.pid} ({process.name}) has exited with status {end.status}",
            hint="`aios ps --all` lists those that have ended",
        )


def _hold_runs(process: Process, is_stopped: bool) -> None:
    """Freeze or thaw what the calls of a process run outside of the kernel. What is killed is never thawed: it would act."""
    for run in list(process.runs.values()):
        if run.on_hold is not None:
            run.on_hold(is_stopped)
