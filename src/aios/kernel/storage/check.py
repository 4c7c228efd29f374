"""What `aios fsck` looks for: tables that contradict each other, wrong counts, damaged contents."""

from functools import partial

import apsw

from aios.abi.storage import Checked
from aios.disk.blobs import BlobStore
from aios.kernel.storage.advances import Report, silent
from aios.kernel.storage.content import Manifest


def check_all(connection: apsw.Connection, blobs: BlobStore, report: Report = silent) -> Checked:
    """Read everything that is stored, compare it with its checksums and counts, and the tables with each other."""
    report("tables", 0, None)
    faults = [
        f"sqlite: {row[0]}" for row in connection.execute("PRAGMA quick_check") if row != ("ok",)
    ]
    faults += find_disorder(connection)
    faults += find_miscounts(connection)
    faults += blobs.find_damage(connection, partial(report, "contents"))
    n_blobs: int = connection.execute("SELECT count(*) FROM blobs").get
    n_versions: int = connection.execute("SELECT count(*) FROM versions").get
    return Checked(n_blobs, n_versions, tuple(faults))


def find_disorder(connection: apsw.Connection) -> list[str]:
    """Every contradiction between the tables."""
    questions = {
        "its newest version is another": "SELECT path FROM files f WHERE version != "
        "(SELECT max(version) FROM versions v WHERE v.path = f.path)",
        "it is listed, and not in its versions": "SELECT path FROM files f WHERE NOT EXISTS "
        "(SELECT 1 FROM versions v WHERE v.path = f.path AND v.version = f.version AND v.content = f.content)",
        "its newest version has content, and it is not listed": "SELECT path FROM versions v WHERE content NOT NULL "
        "AND version = (SELECT max(version) FROM versions w WHERE w.path = v.path) "
        "AND NOT EXISTS (SELECT 1 FROM files f WHERE f.path = v.path)",
        "this content is counted wrongly": "SELECT id FROM contents c WHERE n_refs != "
        "(SELECT count(*) FROM versions v WHERE v.content = c.id)",
    }
    return [
        f"{path}: {what}" for what, sql in questions.items() for (path,) in connection.execute(sql)
    ]


def find_miscounts(connection: apsw.Connection) -> list[str]:
    """Every blob whose references are not those that contents have."""
    counts: dict[int, int] = {}
    for (chunks,) in connection.execute("SELECT chunks FROM contents"):
        for key in Manifest.decode(chunks).keys:
            counts[key] = counts.get(key, 0) + 1
    rows = connection.execute("SELECT key, n_refs FROM blobs")
    return [
        f"blob {key} has {n} references, not {counts.get(key, 0)}"
        for key, n in rows
        if n != counts.get(key, 0)
    ]
