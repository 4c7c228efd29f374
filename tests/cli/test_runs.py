"""Runs as files: exported from a home, read, kept in another."""

from pathlib import Path

import msgspec
from tests.cli.conftest import Aios, serving
from tests.cli.test_journal import calls
from tests.kernel.journal.runs import rows

from aios.abi.call import Done
from aios.abi.calls import ExitSelf, GetPid, Self
from aios.abi.types import Exit, Pid
from aios.kernel.egress.secrets import Secret, SecretStore
from aios.kernel.journal.redaction import Redaction
from aios.kernel.journal.runfile import Run, read_run, write_run
from aios.sdk.client import Client


def test_a_run_is_exported_with_a_kernel_and_without_and_kept_elsewhere(
    aios: Aios, home: Path, tmp_path: Path
) -> None:
    with_kernel, without = tmp_path / "with.run", tmp_path / "without.run"
    with serving(home, is_durable=True) as served:
        calls(served, served.admit("bob"), 3)
        assert aios("journal", "bob", "--json").code == 0  # what waits is on disk now
        exported = aios("journal", "export", "bob", "-o", str(with_kernel))
        assert exported.out.startswith(f"wrote 3 calls of bob to {with_kernel} (")
        refused = aios("journal", "import", str(with_kernel), "--json")
        assert (refused.code, refused.error()["code"]) == (6, "conflict")
    assert aios("journal", "export", "bob", "-o", str(without)).code == 0
    assert aios("replay", str(with_kernel), "--diff", str(without)).code == 0
    kept = aios("journal", "import", str(with_kernel), "--json").rows()[0]
    assert (kept["n_records"], kept["name"]) == (3, "bob-2"), "a name that no other has"
    assert aios("replay", "bob", "--diff", str(kept["pid"])).out == "the same, 3 calls\n"


def test_an_imported_run_is_an_ended_process_for_every_command_and_is_kept_from_then_on(
    aios: Aios, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.run"
    old = rows([(GetPid(), Self(Pid(7), Pid(1), "ann")), (ExitSelf(status=3, result="so"), Done())])
    file.write_bytes(write_run(Run("ann", "", old), Redaction(())))
    kept = aios("journal", "import", str(file), "--json").rows()[0]
    with serving(home, is_durable=True) as served:
        process = served.kernel.table.get(Pid(msgspec.convert(kept["pid"], int)))
        assert process.exit == Exit(3, "imported from a.run", "so")
        since_unix_s = served.kernel._kept().since_unix_s
        assert max(row.record.begun_unix_s for row in old) < since_unix_s
        assert served.kernel._kept().ended[process.pid] > since_unix_s
        shown = [row["call"] for row in aios("journal", "ann", "--json").rows()]
        assert shown == ["getpid", "exit"]
        assert "imported from a.run" in aios("inspect", "ann").out
        assert "imported from a.run" in aios("ps", "--all").out


def test_a_file_that_is_no_run_is_refused(aios: Aios, home: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no run at all")
    for verb in (("replay",), ("journal", "import")):
        refused = aios(*verb, str(tmp_path / "a"), "--json")
        assert refused.code == 2
        assert "no run" in str(refused.error()["message"])
    assert not (home / "aios.db").exists()


def test_a_home_without_a_journal_has_no_runs(aios: Aios, home: Path) -> None:
    assert home.exists()
    assert aios("replay", "bob").code == 4


def test_what_aios_secret_keeps_is_in_no_exported_run(
    aios: Aios, home: Path, tmp_path: Path
) -> None:
    kept = SecretStore(home / "secrets.json")
    kept.put("KEY", Secret("swordfish-1", ("api.example.com",)))
    with serving(home, is_durable=True) as served:
        bob = Client(served.kernel.gate(Pid(served.admit("bob"))))
        served.portal.call(bob.log, "it said swordfish-1 to me")
        assert aios("journal", "bob", "--json").code == 0
    assert aios("journal", "export", "bob", "-o", str(tmp_path / "a.run")).code == 0
    run = read_run((tmp_path / "a.run").read_bytes())
    assert run.rows[0].intent
    assert not any(b"swordfish" in row.intent for row in run.rows)
