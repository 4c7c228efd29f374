"""Tails: pages that are filled in part, and how long they are kept."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from tests.kernel.context.test_pages import PAGE_TOKENS, add, files_in, store_of

from aios.kernel.context.files import open_file
from aios.kernel.context.keys import is_tail, page_keys


def test_a_tail_goes_with_its_last_pin(tmp_path: Path) -> None:
    store = store_of(4, files_in(tmp_path))
    tokens = np.arange(7, dtype=np.int32)
    keys = store.keys(tokens, tail=True)
    assert keys[:1] == store.keys(tokens)
    assert [is_tail(key) for key in keys] == [False, True]
    store.pin("mine", keys)
    assert add(store, keys) == 2
    store.pin("fork", keys)
    store.unpin("mine")
    assert store.flush(keys) == 2
    store.unpin("fork")
    store.check_invariants()
    assert store.n_known(keys) == 1
    assert len(list(tmp_path.glob("*/*.page"))) == 1


def test_a_tail_that_is_let_go_while_it_is_written_leaves_no_file(tmp_path: Path) -> None:
    def let_go(path: Path, mode: str) -> BinaryIO:
        if mode == "wb":
            store.unpin("snapshot")
        return open_file(path, mode)

    files = files_in(tmp_path, opener=let_go)
    store = store_of(4, files)
    keys = page_keys("model", np.arange(2, dtype=np.int32), PAGE_TOKENS, tail=True)
    store.pin("snapshot", keys)
    add(store, keys)
    store.flush(keys)
    assert not list(tmp_path.glob("*/*.page")), "nobody would remove it later"
    assert len(files) == 0
    store.check_invariants()
