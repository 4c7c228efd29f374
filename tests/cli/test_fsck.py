import os
from pathlib import Path

from tests.cli.conftest import Aios, serving


def test_what_is_stored_is_checked_with_a_kernel_and_without(
    aios: Aios, home: Path, tmp_path: Path
) -> None:
    assert aios("fsck").out == "0 versions, 0 blobs, 0 notes, 0 faults\n"
    assert not (home / "aios.db").exists(), "a check makes nothing"
    (tmp_path / "in").write_bytes(os.urandom(2 << 20))
    with serving(home):
        assert aios("fs", "put", str(tmp_path / "in"), "/shared/a").code == 0
        assert aios("mem", "add", "The boat is red").code == 0
        with_kernel = aios("fsck", "--json").rows()
    assert with_kernel[0]["n_notes"] == 1
    assert aios("fsck", "--json").rows() == with_kernel
    next((home / "blobs").glob("??/*")).write_bytes(b"damaged")
    checked = aios("fsck")
    assert checked.code == 1
    assert "is not what was stored" in checked.out
    (home / "aios.db").unlink()
    lost = aios("fsck")
    assert (lost.code, "aios.db is gone" in lost.out) == (1, True)


def test_a_database_that_is_none_is_a_fault(aios: Aios, home: Path) -> None:
    (home / "aios.db").write_bytes(b"no database at all" * 1000)
    checked = aios("fsck")
    assert checked.code == 1
    assert "damaged" in checked.out
