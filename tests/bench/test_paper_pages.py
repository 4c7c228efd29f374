"""Contexts with real pages: each page is computed once, and comes back as it was."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from aios.bench import paper_pages
from aios.bench.paper_pages import Crowd, run_contexts
from aios.kernel.context.files import PageFiles

SMALL = Crowd(60, 20, page_bytes=1024, ram_bytes=60 * 1024)


def test_no_page_is_computed_twice_though_memory_holds_few(tmp_path: Path) -> None:
    tally = run_contexts(tmp_path, SMALL)
    assert tally.n_computed == tally.n_distinct == 24 + 2 * 20 + 60
    assert tally.n_from_disk > 30
    assert tally.n_wrong == 0
    assert tally.all_us < 5 * tally.few_us


def test_without_room_on_disk_pages_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_pages, "DISK_BYTES", 10 * 1024)
    tally = run_contexts(tmp_path, replace(SMALL, n_first=1))
    assert tally.n_computed > tally.n_distinct


def test_a_page_that_is_another_is_noticed(tmp_path: Path) -> None:
    page = np.zeros(64, np.uint8)
    paper_pages._compute(b"k" * 16, page)
    assert paper_pages._is_right(b"k" * 16, page)
    page[63] ^= 1
    assert not paper_pages._is_right(b"k" * 16, page)
    assert len(PageFiles(tmp_path, page_bytes=64, budget_bytes=640)) == 0
