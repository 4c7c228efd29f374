"""Runs by what a user types: a process of AIOS_HOME, whether a kernel runs there or not, or a file."""

from contextlib import suppress
from itertools import count
from pathlib import Path

from aios.abi.calls import ExitSelf
from aios.abi.types import Exit, Kind, Pid, ProcessInfo, Usage
from aios.abi.wire import decode_answer, decode_call
from aios.cli.ids import as_pid, find_process
from aios.config import Home
from aios.configload import load
from aios.disk.connection import connect, translated
from aios.disk.lock import FileLock
from aios.disk.migrations import migrate
from aios.errors import InvalidCall, NotFound, ProgramFailed
from aios.kernel.clock import SystemClock
from aios.kernel.egress.secrets import SecretStore
from aios.kernel.journal import tables
from aios.kernel.journal.records import Outcome
from aios.kernel.journal.redaction import Redaction
from aios.kernel.journal.runfile import Run, read_run
from aios.kernel.logs import LogBuffer
from aios.kernel.process import INIT_PID
from aios.kernel.residents import SCHEMA as RESIDENTS
from aios.kernel.residents import Resident, read_residents, save
from aios.kernel.sealing import Sealer

MAX_FILE_BYTES = 1 << 30
OWNER = "owner"
"""Whose the processes of imported runs are."""
NO_USAGE = Usage()


def find_run(reference: str) -> Run:
    """The run of a process of AIOS_HOME, by pid or name, or that in a file. A kernel that runs is not disturbed.

    Raises:
        InvalidCall: The file is no run, or several names begin so.
        NotFound: There is neither such a process nor such a file.
    """
    path = Path(reference)
    if not reference.isdecimal() and path.is_file():
        return read_file(path)
    return stored_run(reference)[0]


def read_file(path: Path) -> Run:
    """The run in a file.

    Raises:
        InvalidCall: It is none.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidCall(f"{path} is over {MAX_FILE_BYTES} bytes", hint="export less")
    return read_run(path.read_bytes())


def stored_run(reference: str) -> tuple[Run, Redaction]:
    """The run of a process of AIOS_HOME, and what hides its secrets.

    Raises:
        NotFound: There is no such process, or the journal has nothing of it.
    """
    home = load().home
    if not home.database.exists():
        raise NotFound(
            f"{home.root} has no journal", hint="a daemon keeps one: `aios serve`; or name a file"
        )
    connection = connect(home.database, is_writer=False)
    try:
        with translated(home.database), connection:
            residents = read_residents(connection)
            pid, resident = _find_pid(reference, residents)
            rows = tables.load(connection, pid)
    finally:
        connection.close()
    if not rows:
        raise NotFound(f"the journal has nothing of process {reference}", hint="`aios ps --all`")
    program = Path(resident.program).name if resident is not None else ""
    name = resident.name if resident is not None else f"process-{pid}"
    return Run(name, program, tuple(rows)), Redaction(_secrets(home, resident))


def keep_run(run: Run, whence: str) -> tuple[Pid, str]:
    """Put a run into the journal of AIOS_HOME, as that of a process that has ended. Returns: its pid and its name, which no other has.

    Raises:
        Conflict: A kernel has the journal open.
    """
    home = load().home
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock.acquire(home.database.with_name(f"{home.database.name}.lock"))
    try:
        connection = connect(home.database, is_writer=True)
        with translated(home.database):
            migrate(connection, (tables.SCHEMA, RESIDENTS))
            with connection:
                known = read_residents(connection)
                pid = Pid(max([INIT_PID, tables.last_pid(connection), *(r.pid for r in known)]) + 1)
                name = _unused_name(run.name, {each.name for each in known})
                tables.take_in(connection, pid, run.rows)
                save(connection, _ended(run, pid, name, whence))
        connection.close()
        return pid, name
    finally:
        lock.release()


def _unused_name(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _ended(run: Run, pid: Pid, name: str, whence: str) -> Resident:
    """The row of the process that a run is kept as. It ended now: from now on the journal keeps it."""
    status, result, usage = 0, "", Usage()
    for row in run.rows:
        if row.record.call == "exit" and row.intent:
            asked = decode_call(row.intent)
            assert isinstance(asked, ExitSelf), f"{asked} is called exit"
            status, result = asked.status, asked.result
        if row.record.outcome is Outcome.DONE and row.answer:
            usage += getattr(decode_answer(row.answer), "usage", NO_USAGE)
    times = [at for row in run.rows for at in (row.record.begun_unix_s, row.record.ended_unix_s)]
    now_unix_s = SystemClock().unix_s()
    took_s = max(times, default=0.0) - min(filter(None, times), default=0.0)
    return Resident(
        pid=pid,
        ppid=INIT_PID,
        name=name,
        kind=Kind.PROGRAM if run.program else Kind.GUEST,
        owner=OWNER,
        rights=(),
        lineage=(name,),
        program=run.program,
        nice=0,
        is_stopped=False,
        is_waited_for=True,
        started_unix_s=now_unix_s - max(0.0, took_s),
        ended_unix_s=now_unix_s,
        exit=Exit(status, f"imported from {whence}", result),
        usage=usage,
    )


def _find_pid(reference: str, residents: list[Resident]) -> tuple[Pid, Resident | None]:
    by_pid = {each.pid: each for each in residents}
    pid = as_pid(reference)
    if pid is not None:
        return pid, by_pid.get(pid)
    found = find_process(reference, [_info(each) for each in residents])
    return found.pid, by_pid[found.pid]


def _info(row: Resident) -> ProcessInfo:
    return row.process(LogBuffer(row.pid, 0)).info(0.0)


def _opened(home: Home, env: dict[str, str]) -> dict[str, str]:
    """The environment of a program; one that cannot be opened is in no journal either."""
    if not home.env_key.exists():
        return env
    with suppress(ProgramFailed):
        return Sealer(home.env_key.read_bytes()).open(env)
    return {}


def _secrets(home: Home, resident: Resident | None) -> list[str]:
    """The owner's token, what `aios secret` keeps, and the environment of the program as far as it is known."""
    env = resident.launched.env if resident and resident.launched else {}
    found = list(_opened(home, env).values())
    if home.token_file.exists():
        found.append(home.token_file.read_text().strip())
    return [*found, *(each.value for each in SecretStore(home.secrets).load().values())]
