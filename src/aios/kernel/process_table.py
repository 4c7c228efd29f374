"""The process table: the tree of processes, living and ended."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from aios.abi.types import Exit, Kind, Pid, Right
from aios.errors import Conflict, NotFound, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.logs import LogBuffer
from aios.kernel.process import INIT_PID, Process
from aios.kernel.taint import at_birth

KEPT_RESULT_CHARS = 64 << 20
"""Of the results of all that have ended. Each may be of 4 MiB, and a thousand are kept."""
MAX_GENERATIONS = 60
"""Below the owner. Each costs every check and reservation of those below it, and no path of an agent's folder may be longer (`storage/paths.py`)."""


class ProcessTable:
    """All processes by pid, and the tree that they form. Pids only grow."""

    def __init__(
        self,
        *,
        clock: Clock,
        max_alive: int,
        max_exited: int,
        max_log_bytes: int,
        on_end: Callable[[Process], None] = lambda _: None,
        on_forget: Callable[[Pid], None] = lambda _: None,
        on_taint: Callable[[Process], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._max_alive = max_alive
        self._max_exited = max_exited
        self.open_log: Callable[[Pid], LogBuffer] = partial(LogBuffer, max_bytes=max_log_bytes)
        """Makes the log of a process."""
        self._on_end = on_end
        self._on_forget = on_forget
        self.is_needed: Callable[[Pid], bool] = lambda _: False
        """Whether an ended process must not be forgotten yet."""
        self._on_taint = on_taint
        self._by_pid: dict[Pid, Process] = {}
        self._names: dict[str, Pid] = {}
        self._exited: OrderedDict[Pid, None] = OrderedDict()
        """Oldest first; a plain dict looks through all that left its front to find the next."""
        self._spared: dict[Pid, None] = {}
        """Those of them whose turn to be forgotten came while they were needed."""
        self._n_result_chars = 0
        self._last_pid = 0

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._by_pid.values()))

    def __len__(self) -> int:
        return len(self._by_pid)

    @property
    def last_pid(self) -> Pid:
        """The highest that was given; later ones are higher."""
        return Pid(self._last_pid)

    @property
    def n_alive(self) -> int:
        """Processes that have not ended."""
        return len(self._by_pid) - len(self._exited)

    def add(
        self,
        name: str,
        *,
        kind: Kind,
        parent: Process | None,
        rights: frozenset[Right],
        owner: str,
        program: str = "",
    ) -> Process:
        """A new process under that parent; a taken name gets the next free number after it.

        Raises:
            ProcessGone: The parent has exited.
            ResourceExhausted: The table is full, or the parent is of the last generation.
        """
        if parent is not None and parent.exiting is not None:
            raise parent.gone()
        if parent is not None and len(parent.lineage) >= MAX_GENERATIONS:
            raise ResourceExhausted(
                f"process {parent.pid} ({parent.name}) can start none: there are {MAX_GENERATIONS} generations down to it",
                hint='what is to run on and on has the restart policy "always", or is started by one that stays',
            )
        if self.n_alive >= self._max_alive:
            raise ResourceExhausted(
                f"{self.n_alive} processes are alive, the limit is {self._max_alive}",
                hint="end some (`aios ps`, `aios kill`) or raise kernel.max_processes",
            )
        pid = self.take_pid()
        confines = parent.confines if parent else None
        if confines is not None:  # what is kept under its name must go with the branch
            name = f"{confines.name}/{name}"
        free_name = self._free_name(name, pid)
        process = Process(
            pid=pid,
            ppid=parent.pid if parent else Pid(0),
            name=free_name,
            lineage=(*parent.lineage, free_name) if parent else (),
            family=(parent.family or free_name) if parent else "",
            fetch_lists=parent.fetch_lists if parent else (),
            network=_network_of(kind, parent),
            confines=confines,
            taint=at_birth(free_name, kind, parent),
            on_taint=self._on_taint,
            kind=kind,
            owner=owner,
            rights=rights,
            program=program,
            log=self.open_log(pid),
            started_unix_s=self._clock.unix_s(),
        )
        self._by_pid[pid] = process
        self._names[process.name] = pid
        if parent is not None:
            parent.children.add(pid)
        return process

    def take_pid(self) -> Pid:
        """A pid that nobody else gets."""
        self._last_pid += 1
        return Pid(self._last_pid)

    def number_after(self, pid: Pid) -> None:
        """Pids up to this one were given by earlier kernels."""
        self._last_pid = max(self._last_pid, pid)

    def adopt(self, process: Process) -> None:
        """Take in a process of the kernel before, after its parent; one without a living parent becomes init's."""
        parent = self._by_pid.get(process.ppid)
        if parent is None or not parent.is_alive:
            _orphan(process)
        self.number_after(process.pid)
        process.on_taint = self._on_taint
        self._by_pid[process.pid] = process
        self._by_pid[process.ppid].children.add(process.pid)
        if process.exit is None:
            self._names[process.name] = process.pid
        else:
            self._keep_ended(process)

    def get(self, pid: Pid) -> Process:
        """The process with that pid.

        Raises:
            NotFound: There is none, or it ended so long ago that it is forgotten.
        """
        process = self._by_pid.get(pid)
        if process is None:
            raise NotFound(f"no process {pid}", hint="`aios ps --all` lists them")
        return process

    def find(self, pid: Pid) -> Process | None:
        """The process with that pid, if it is remembered."""
        return self._by_pid.get(pid)

    def find_named(self, name: str) -> Process | None:
        """The living process of that name."""
        pid = self._names.get(name)
        return None if pid is None else self._by_pid[pid]

    def tree(self, process: Process) -> list[Process]:
        """A process and its living descendants, parents first."""
        found = [process]
        for parent in found:
            found.extend(
                child for pid in sorted(parent.children) if (child := self._by_pid[pid]).is_alive
            )
        return found

    def is_within(self, process: Process, ancestor: Process) -> bool:
        """Whether `process` is `ancestor` or a descendant of it."""
        while process is not ancestor:
            if process.ppid == 0:
                return False
            process = self._by_pid[process.ppid]
        return True

    def end(self, process: Process, end: Exit) -> None:
        """Record the end of a process: its children become init's, and the oldest ended one may be forgotten."""
        if process.pid == INIT_PID:
            raise Conflict(
                "init cannot end before the kernel", hint="`aios shutdown` ends the kernel"
            )
        process.mark_ended(end, unix_s=self._clock.unix_s())
        self._on_end(process)
        self._names.pop(process.name, None)
        self._keep_ended(process)
        init = self._by_pid[INIT_PID]
        for pid in process.children:
            _orphan(self._by_pid[pid])
            init.children.add(pid)
        process.children.clear()
        self._forget_oldest()
        self._forget_large()

    def _keep_ended(self, process: Process) -> None:
        self._exited[process.pid] = None
        self._n_result_chars += _n_result_chars(process)

    def _forget_oldest(self) -> None:
        """Forget those that have ended, so that as many are left as may be, beside those that are needed."""
        for pid in [pid for pid in self._spared if not self.is_needed(pid)]:
            self._forget(pid)
        n_over = len(self._exited) - len(self._spared) - self._max_exited
        others = (pid for pid in self._exited if pid not in self._spared)
        for pid in list(islice(others, max(0, n_over))):
            if self.is_needed(pid):
                self._spared[pid] = None
            else:
                self._forget(pid)

    def _forget_large(self) -> None:
        """If the results take more than their room, forget the oldest of those that take more than their share: who returns little is not in the way."""
        if self._n_result_chars <= KEPT_RESULT_CHARS:
            return
        share = KEPT_RESULT_CHARS // len(self._exited)
        *older, _ = self._exited
        older.sort(
            key=lambda pid: not self._by_pid[pid].is_waited_for
        )  # else their parents miss them
        for pid in older:
            if _n_result_chars(self._by_pid[pid]) > share and not self.is_needed(pid):
                self._forget(pid)
                if self._n_result_chars <= KEPT_RESULT_CHARS:
                    return

    def _forget(self, pid: Pid) -> None:
        self._spared.pop(pid, None)
        del self._exited[pid]
        process = self._by_pid.pop(pid)
        self._n_result_chars -= _n_result_chars(process)
        self._by_pid[process.ppid].children.discard(pid)
        self._on_forget(pid)

    def _free_name(self, name: str, pid: Pid) -> str:
        free = name
        while free in self._names:  # mostly once; the pid never comes again, so it ends
            free = f"{free}-{pid}"
        return free

    def check_invariants(self) -> None:
        """Raise AssertionError if the table contradicts itself."""
        for pid, process in self._by_pid.items():
            assert process.pid == pid
            assert (process.exit is None) == (pid not in self._exited), (
                f"{pid} is in the wrong list"
            )
            assert not (process.exit and process.runs), (
                f"{pid} has ended and still runs {process.runs}"
            )
            if process.ppid:
                assert pid in self._by_pid[process.ppid].children, f"{pid} is lost to its parent"
        for name, pid in self._names.items():
            assert self._by_pid[pid].name == name
            assert self._by_pid[pid].is_alive
        n_chars = sum(_n_result_chars(self._by_pid[pid]) for pid in self._exited)
        assert n_chars == self._n_result_chars, "the results are miscounted"
        assert len(self._names) == self.n_alive, "two living processes have the same name"


def _n_result_chars(process: Process) -> int:
    return 0 if process.exit is None else len(process.exit.result)


def _orphan(process: Process) -> None:
    """Its parent has ended, and goes on paying for it: it is bound by the same limits, also under another kernel."""
    if process.payer is None and process.ppid != INIT_PID:
        process.payer = process.ppid
    process.ppid = INIT_PID


def _network_of(kind: Kind, parent: Process | None) -> tuple[tuple[str, ...], ...] | None:
    """The owner has what the configuration says, and so has what runs in the kernel's own program; a program asks by its manifest."""
    if parent is None:
        return ()
    return parent.network if kind is Kind.TASK else None
