"""How the logs of a kernel's processes come to disk: what is hidden in them, and from when on."""

from collections.abc import Iterable
from typing import Protocol

import anyio.abc
import anyio.to_thread

from aios.abi.types import Pid
from aios.config import Config, Home
from aios.errors import AiosError
from aios.kernel.journal.redaction import Redaction
from aios.kernel.logfiles import LogFiles
from aios.kernel.process import INIT_PID, Process
from aios.kernel.process_table import ProcessTable
from aios.kernel.programs import Programs
from aios.kernel.residents import Launched

MAX_REDACTIONS = 1_000
"""Programs whose secrets are known at once; of others they are looked up again."""


class LogKernel(Protocol):
    """What is used of the kernel."""

    config: Config
    home: Home
    tasks: anyio.abc.TaskGroup
    table: ProcessTable
    programs: Programs
    init: Process
    owner_token: str


async def keep_logs(kernel: LogKernel) -> LogFiles:
    """Keep the logs of all processes that come from now on; those of the kernel before are there again."""
    secrets = _Known(kernel)
    files = LogFiles(kernel.home.logs, kernel.config.kernel.max_log_bytes, secrets.hide)
    await anyio.to_thread.run_sync(files.load)
    kernel.table.open_log = files.open
    kernel.init.log = files.open(INIT_PID)
    kernel.tasks.start_soon(files.run)
    return files


class _Known:
    """What is known to be secret: the environment of a program, the owner's token, and texts that look like keys."""

    def __init__(self, kernel: LogKernel) -> None:
        self._kernel = kernel
        self._by_pid: dict[Pid, tuple[Launched | None, str, Redaction]] = {}

    def hide(self, pid: Pid, text: str) -> str:
        """A text of a process without them."""
        launched, token = self._kernel.programs.launched_of(pid), self._kernel.owner_token
        found = self._by_pid.get(pid)
        if found is None or found[0] is not launched or found[1] != token:
            if len(self._by_pid) >= MAX_REDACTIONS:
                self._by_pid.clear()
            found = (launched, token, Redaction((token, *self._env(launched))))
            self._by_pid[pid] = found
        return found[2].text(text)

    def _env(self, launched: Launched | None) -> Iterable[str]:
        if launched is None:
            return ()
        try:
            return self._kernel.programs.sealer.open(launched.env).values()
        except AiosError:  # the key is another: the program has not had them either
            return ()
