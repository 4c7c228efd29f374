"""The verbs `audit log`, `verify` and `export`. They read the files of AIOS_HOME, whether a kernel runs or not, and change nothing."""

import re
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from aios.abi.types import MAX_INT
from aios.cli.exits import ExitCode
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, write_json
from aios.configload import load
from aios.errors import InvalidCall, NotFound

if TYPE_CHECKING:  # start-up time: SQLite and the kernel's rooms are loaded where they are used
    from collections.abc import Iterator

    import apsw

    from aios.kernel.journal.audit.chain import Link
    from aios.kernel.journal.audit.tables import Verified, Wanted

KINDS = ("begin", "effect", "denied", "asked", "answered", "expired", "token")
NOTED = re.compile(r"[0-9]{1,18}:[0-9a-f]+")
POLL_S = 0.5
"""How soon `--follow` sees a record."""


class Audited(Struct, frozen=True):
    """A record as JSON. `number` is that of the call in the journal of its process; `digest` is SHA-256 of the call."""

    seq: int
    unix_s: float
    pid: int
    number: int
    kind: str
    call: str
    effect: str
    subject: str
    digest: str
    code: str


class Report(Struct, frozen=True):
    """What a check has found."""

    n_records: int
    first: int
    last: int
    head: str
    faults: tuple[str, ...]


@click.group()
def audit() -> None:
    """Show and check the log of what was done and refused, which shows when somebody has changed it."""


@audit.command(epilog=examples("aios audit log -n 20", "aios audit log -f --pid 7 --kind denied"))
@click.option(
    "-n", "--last", type=click.IntRange(1, MAX_INT), metavar="N", help="Only the last N records."
)
@click.option("--pid", type=click.IntRange(0, MAX_INT), help="Only what this process did.")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=None,
    help="Only records of this kind.",
)
@click.option("--call", default="", metavar="NAME", help="Only this system call.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@json_option
def log(
    *, last: int | None, pid: int | None, kind: str | None, call: str, follow: bool, as_json: bool
) -> None:
    """Show what was done, oldest first: each effect before it took place, each refusal, each token that was made.

    A line has the record's number, the time, the process, the number of the call in its journal (which has the outcome), the
    kind, the call with its effect, and whom or what it was done to.
    """
    from aios.kernel.journal.audit import tables  # noqa: PLC0415 - see above

    wanted = tables.Wanted(pid=pid, kind=kind or "", call=call)
    with _opened() as connection:
        if connection is None:
            return
        seen = 0
        found = tables.last(connection, wanted, last) if last else tables.read(connection, wanted)
        for link in found:
            _show(link, as_json=as_json)
            seen = link.seq
        while follow:
            for link in tables.read(connection, _behind(wanted, seen)):
                _show(link, as_json=as_json)
                seen = link.seq
            threading.Event().wait(POLL_S)


@audit.command(epilog=examples("aios audit verify", "aios audit verify --noted 4711:9f2c..."))
@click.option(
    "--noted",
    default="",
    metavar="SEQ:CODE",
    help="The `head` of an earlier check, as you noted it elsewhere: the log must still hold it.",
)
@json_option
def verify(*, noted: str, as_json: bool) -> None:
    """Check that no record was changed, moved, taken out or put in; 1 if one was.

    Who can read audit.key in AIOS_HOME can write a log that passes. Note the head that this prints where an intruder cannot
    reach, and check it later with --noted.
    """
    from aios.kernel.journal.audit import tables  # noqa: PLC0415 - see above
    from aios.kernel.journal.audit.log import load_key  # noqa: PLC0415 - see above

    if noted and not NOTED.fullmatch(noted):
        raise InvalidCall(
            f"{noted!r} is no head of a check", hint="say it as `aios audit verify` printed it"
        )
    file = load().home.audit_key
    with _opened() as connection:
        if connection is None:
            is_lost = bool(noted) or file.exists()
            found = tables.Verified(0, 0, 0, "", ("the log is gone",) if is_lost else ())
        elif not file.exists():
            found = tables.Verified(0, 0, 0, "", ("audit.key is gone",))
        else:
            found = tables.verify(connection, load_key(file), noted=noted)
    _tell(found, as_json=as_json)


@audit.command(epilog=examples("aios audit export > audit.jsonl"))
@json_option
def export(*, as_json: bool) -> None:  # noqa: ARG001 - it is JSON in any case
    """Print the whole log as JSON, one record a line, with the code of each; `--json` changes nothing."""
    from aios.kernel.journal.audit import tables  # noqa: PLC0415 - see above

    with _opened() as connection:
        if connection is not None:
            for link in tables.read(connection, tables.Wanted()):
                write_json(_audited(link))


@contextmanager
def _opened() -> "Iterator[apsw.Connection | None]":
    """The database, for reading; None if there is none yet.

    Raises:
        DiskFailed: It cannot be read.
        NotFound: No kernel of this version has written it.
    """
    from aios.disk.connection import connect, translated  # noqa: PLC0415 - see above

    file = load().home.database
    if not file.exists():
        yield None
        return
    connection = connect(file, is_writer=False)
    try:
        with translated(file):
            query = "SELECT count(*) FROM sqlite_schema WHERE name = 'audit_records'"
            if not connection.execute(query).get:
                raise NotFound("this home has no audit log", hint="`aios serve` begins one")
            yield connection
    finally:
        connection.close()


def _behind(wanted: "Wanted", seq: int) -> "Wanted":
    from aios.kernel.journal.audit.tables import Wanted  # noqa: PLC0415 - see above

    return Wanted(seq, wanted.pid, wanted.kind, wanted.call)


def _tell(found: "Verified", *, as_json: bool) -> None:
    if as_json:
        write_json(Report(found.n_records, found.first, found.last, found.head, found.faults))
    else:
        for fault in found.faults:
            click.echo(printable(fault))
        span = f", {found.first} to {found.last}" if found.n_records else ""
        click.echo(
            f"{counted(found.n_records, 'record')}{span}, {counted(len(found.faults), 'fault')}"
        )
        if found.n_records:
            click.echo(f"head {found.head}")
    if found.faults:
        click.get_current_context().exit(ExitCode.FAILED)


def _show(link: "Link", *, as_json: bool) -> None:
    if as_json:
        write_json(_audited(link))
        return
    act = link.act
    when = datetime.fromtimestamp(act.unix_us / 1e6, UTC).astimezone()
    call = f"{act.call} ({act.effect})" if act.call else ""
    line = f"{link.seq:>7}  {when:%Y-%m-%d %H:%M:%S}  {act.pid:>5} {act.number:>6}  {act.kind.value:<8}  {call}  {act.subject}"
    click.echo(printable(line).rstrip())


def _audited(link: "Link") -> Audited:
    act = link.act
    return Audited(
        link.seq, act.unix_us / 1e6, act.pid, act.number, act.kind.value, act.call, act.effect,
        act.subject, act.digest.hex(), link.code.hex(),
    )  # fmt: skip
