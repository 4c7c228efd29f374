"""Checkpoints on disk: one row each. What is copied for it lies in the other tables, under names that no process has."""

from collections.abc import Mapping

import apsw
import msgspec
from msgspec import Struct

from aios.abi.budget import Limits
from aios.abi.checkpoints import CheckpointInfo
from aios.abi.types import Pid
from aios.disk.migrations import Schema
from aios.errors import NotFound
from aios.kernel.forking.copies import Copied, Estate
from aios.kernel.journal import tables as journal
from aios.kernel.lineage import home_of
from aios.kernel.mail import tables as mail
from aios.kernel.memory import interactions
from aios.kernel.residents import Launched, Resident, plain_path, read_path
from aios.kernel.storage.paths import CHECKPOINTS
from aios.kernel.storage.tables import files_below
from aios.readers import from_msgpack

SCHEMA = Schema(
    "checkpoints", ("CREATE TABLE checkpoints (pid INTEGER PRIMARY KEY, row BLOB NOT NULL)",)
)


class Kept(Struct, frozen=True):
    """A row. `row` and `launched` are those of the process when it was put away, `code_hash` of the code that it ran."""

    id: Pid
    name: str
    row: Resident
    launched: Launched
    code_hash: bytes
    made_unix_s: float
    at: int = 0
    n_files: int = 0
    n_letters: int = 0
    n_pages: int = 0
    pins: tuple[str, ...] = ()
    taint: str = ""
    """Where data that had reached who named it came from outside, empty if none had."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or str(self.id)

    @property
    def estate(self) -> Estate:
        """What its things are known by. No process has that pid, and no name begins so."""
        return Estate(self.id, f"/{CHECKPOINTS}/{self.id}", self.row.owner, f"#{self.id}")

    @property
    def heir(self) -> str:
        """The folder that pays for what others have of its contents when it is removed."""
        return home_of(self.row.lineage)

    @property
    def left(self) -> Limits:
        """What the process had left of its own limits."""
        budget = self.row.budget
        if budget is None:
            return Limits()
        own, left = msgspec.structs.asdict(budget.limits), msgspec.structs.asdict(budget.left)
        return Limits(**{good: left[good] for good, limit in own.items() if limit is not None})

    def pin(self, number: int) -> str:
        """The name under which pages of its context of that number are pinned."""
        return f"checkpoint:{self.id}:{number}"

    def info(self) -> CheckpointInfo:
        """What is told of it."""
        return CheckpointInfo(
            self.id,
            self.name,
            self.row.pid,
            self.row.name,
            self.at,
            self.made_unix_s,
            self.n_files,
            self.n_letters,
            self.n_pages,
        )


def completed(
    connection: apsw.Connection,
    kept: Kept,
    copied: Copied,
    pins: Mapping[str, tuple[str, tuple[bytes, ...]]],
) -> Kept:
    """Inside the write that copies: a row with what came of it, written down."""
    made = msgspec.structs.replace(
        kept,
        at=copied.at,
        n_files=len(files_below(connection, kept.estate.home)),
        n_letters=len(copied.mail.letters),
        n_pages=len({key for _, keys in pins.values() for key in keys}),
        pins=tuple(pins),
    )
    row = msgspec.msgpack.encode(made, enc_hook=plain_path)
    connection.execute("INSERT INTO checkpoints VALUES (?, ?)", (made.id, row))
    return made


def check_there(connection: apsw.Connection, kept: Kept) -> None:
    """Inside a write: raise NotFound if a checkpoint is not there any more, or not yet."""
    query = "SELECT 1 FROM checkpoints WHERE pid = ?"
    if connection.execute(query, (kept.id,)).fetchone() is None:
        raise NotFound(
            f"checkpoint {kept.label} was removed meanwhile, or is not yet made",
            hint="`aios checkpoint ls` lists them",
        )


def load(connection: apsw.Connection) -> list[Kept]:
    """All of them."""
    rows = connection.execute("SELECT row FROM checkpoints ORDER BY pid")
    return [from_msgpack(row[0], Kept, hook=read_path) for row in rows]


def remove(connection: apsw.Connection, kept: Kept) -> None:
    """Inside a write: remove a checkpoint with its journal, records and mail; its files are erased beside this.

    Raises:
        NotFound: As `check_there`.
    """
    check_there(connection, kept)
    connection.execute("DELETE FROM checkpoints WHERE pid = ?", (kept.id,))
    journal.drop(connection, kept.id)
    interactions.erase(connection, kept.estate.whose)
    mail.close(connection, kept.id)
