"""The `storage` bench brings every row, on small loads; how fast it was is not judged here."""

import pytest
from tests.bench.measuring import measured

from aios.bench import crashes, indexing, storage

pytestmark = pytest.mark.anyio

COUNTED = ("escapes", "kill-9", "power-loss")


@pytest.mark.no_cover
async def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "N_FILES", 2_000)
    monkeypatch.setattr(storage, "N_VERSIONS", 100)
    monkeypatch.setattr(storage, "SMALL_S_QUICK", 0.1)
    monkeypatch.setattr(storage, "LONG_BYTES_QUICK", 8 << 20)
    monkeypatch.setattr(storage, "RACES_S", 0.3)  # tests of the storage race for longer
    monkeypatch.setattr(indexing, "N_FILES_QUICK", 20)
    monkeypatch.setattr(crashes, "N_KILLS_QUICK", 1)
    rows = await measured(storage.BENCH, within_s=180)
    assert set(rows) == {spec.row for spec in storage.BENCH.specs}
    # A small file may take no memory that the operating system would notice.
    assert all(row.value is not None and row.value >= 0 for row in rows.values())
    assert [rows[name].note for name in COUNTED if not rows[name].ok] == []
    versions = rows["versions-1000"].value
    assert versions is not None
    assert versions <= 0.5, "100 versions; the bar is 5 MB for 1,000"
