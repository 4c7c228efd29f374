"""The log is read from the files of the home; who writes it is a kernel in this process."""

from pathlib import Path

import anyio
import apsw
from tests.cli.conftest import Aios

from aios.cli.audit import KINDS
from aios.config import Config, Home
from aios.kernel.journal.audit.chain import Kind
from aios.kernel.kernel import open_kernel
from aios.sdk.client import Client


async def act(home: Path) -> None:
    async with open_kernel(Config(), Home(home), engines={}, is_durable=True) as kernel:
        client = Client(kernel.init_gate())
        await client.files.write("/shared/a", b"text")
        await client.admit("visitor")


def test_the_log_is_shown_checked_and_exported_without_a_kernel(aios: Aios, home: Path) -> None:
    assert aios("audit", "verify").out == "0 records, 0 faults\n"
    anyio.run(act, home)
    assert "put:/shared/a" in aios("audit", "log", "--call", "file_edit").out
    assert [row["call"] for row in aios("audit", "log", "--json", "--kind", "effect").rows()][
        -1
    ] == "admit"
    assert set(KINDS) == {kind.value for kind in Kind}, "each kind can be asked for"
    assert aios("audit", "log", "--kind", "answered").out == ""
    assert len(aios("audit", "log", "-n", "2").out.splitlines()) == 2
    report = aios("audit", "verify", "--json").rows()[0]
    assert report["faults"] == []
    assert aios("audit", "verify", "--noted", str(report["head"])).code == 0
    assert aios("audit", "verify", "--noted", "nonsense").code == 2
    assert len(aios("audit", "export").out.splitlines()) == report["n_records"]


def test_a_changed_log_is_found_and_the_exit_code_says_so(aios: Aios, home: Path) -> None:
    anyio.run(act, home)
    with apsw.Connection(str(home / "aios.db")) as connection:
        connection.execute("UPDATE audit_records SET subject = 'name=nobody' WHERE call = 'admit'")
    checked = aios("audit", "verify")
    assert checked.code == 1
    assert "is not what was written" in checked.out
    (home / "audit.key").unlink()
    assert aios("audit", "verify").code == 1


def test_a_log_that_is_gone_with_its_key_is_missed_by_who_noted_its_head(
    aios: Aios, home: Path
) -> None:
    anyio.run(act, home)
    head = str(aios("audit", "verify", "--json").rows()[0]["head"])
    for file in (*home.glob("aios.db*"), home / "audit.key"):
        file.unlink()
    checked = aios("audit", "verify", "--noted", head)
    assert (checked.code, "the log is gone" in checked.out) == (1, True)
