"""Runs as files: exported from a home, read, kept in another."""

from pathlib import Path

from tests.cli.conftest import Aios, serving
from tests.cli.test_journal import calls


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
    assert kept["n_records"] == 3
    assert aios("replay", "bob", "--diff", str(kept["pid"])).out == "the same, 3 calls\n"


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
