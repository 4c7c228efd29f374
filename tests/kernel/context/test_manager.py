import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from aios.abi.types import Pid
from aios.config import ContextConfig
from aios.engine.base import PageStore
from aios.kernel.context.files import HEAD_BYTES
from aios.kernel.context.manager import ContextManager


def manager_in(
    folder: Path, *, ram_bytes: int = 1 << 20, disk_bytes: int = 1 << 20
) -> ContextManager:
    return ContextManager(ContextConfig(ram_bytes, disk_bytes), folder)


def test_a_model_has_one_store_and_another_model_another(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path)
    first = contexts.open_pages(fingerprint="a", page_tokens=4, page_bytes=64)
    assert contexts.open_pages(fingerprint="a", page_tokens=4, page_bytes=64) is first
    assert contexts.open_pages(fingerprint="b", page_tokens=4, page_bytes=64) is not first
    assert len(contexts.statistics()) == 2


def test_engines_of_one_model_that_load_together_share_its_store(tmp_path: Path) -> None:
    contexts, n_engines, n_pages = manager_in(tmp_path), 8, 2000
    store = contexts.open_pages(fingerprint="a", page_tokens=4, page_bytes=64)
    for key in store.keys(np.arange(4 * n_pages, dtype=np.int32)):  # to look through takes a while
        store.add(key, None, lambda page: page.fill(7))
    contexts.flush()
    later, together = manager_in(tmp_path), Barrier(n_engines)

    def load(_: int) -> int:
        together.wait()
        return id(later.open_pages(fingerprint="a", page_tokens=4, page_bytes=64))

    with ThreadPoolExecutor(n_engines) as pool:
        assert len(set(pool.map(load, range(n_engines)))) == 1


def test_pages_survive_a_restart_and_refuse_another_model(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path)
    store = contexts.open_pages(fingerprint="a", page_tokens=4, page_bytes=64)
    tokens = np.arange(4, dtype=np.int32)
    (key,) = store.keys(tokens)
    assert store.add(key, None, lambda page: page.fill(7))
    contexts.flush()
    later = manager_in(tmp_path)
    same = later.open_pages(fingerprint="a", page_tokens=4, page_bytes=64)
    other = later.open_pages(fingerprint="b", page_tokens=4, page_bytes=64)
    assert same.n_known(same.keys(tokens)) == 1
    assert same.acquire([key])[0].tolist() == [7] * 64
    assert other.n_known(other.keys(tokens)) == 0
    assert other.n_known([key]) == 0


def test_paging_can_be_switched_off(tmp_path: Path) -> None:
    assert manager_in(tmp_path, ram_bytes=0).find_opener is None
    contexts = manager_in(tmp_path, disk_bytes=0)
    store = contexts.open_pages(fingerprint="a", page_tokens=4, page_bytes=64)
    (key,) = store.keys(np.arange(4, dtype=np.int32))
    store.add(key, None, lambda page: page.fill(7))
    contexts.flush()
    assert list(tmp_path.iterdir()) == []


def test_the_room_for_a_model_is_told_in_tokens_and_only_if_it_has_pages(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path, ram_bytes=640, disk_bytes=1280)
    assert contexts.find_room_tokens("model/q4") is None
    contexts.open_pages(fingerprint="model/q4", page_tokens=4, page_bytes=64)
    assert contexts.find_room_tokens("model/q4") == 1920 // 64 * 4
    assert contexts.find_room_tokens("model") is None


def test_pages_of_processes_are_told_apart_by_where_they_are_and_who_shares_them(
    tmp_path: Path,
) -> None:
    contexts = manager_in(tmp_path, ram_bytes=3 * 64)
    store = contexts.open_pages(fingerprint="a", page_tokens=4, page_bytes=64)
    first = store.keys(np.arange(12, dtype=np.int32))
    second = store.keys(np.concatenate([np.arange(4), np.arange(50, 62)]).astype(np.int32))
    for keys in (first, second[:2]):
        for at, key in enumerate(keys):
            store.add(key, keys[at - 1] if at else None, lambda page: page.fill(7))
    pages = {Pid(2): tuple(first), Pid(3): tuple(second), Pid(4): ()}
    held = contexts.held_pages(pages)
    assert set(held) == {2, 3}, "who has no pages is left out"
    assert (held[Pid(2)].n_pages, held[Pid(2)].n_shared) == (3, 1)
    assert (held[Pid(3)].n_pages, held[Pid(3)].n_shared) == (4, 1)
    assert held[Pid(3)].n_in_memory + held[Pid(3)].n_on_disk == 2, "two were never stored"
    assert all(each.n_in_memory + each.n_on_disk <= each.n_pages for each in held.values())
    assert manager_in(tmp_path / "other").held_pages(pages) == {}, "no engine pages there"


def _filled(contexts: ContextManager, n_pages: int = 3) -> tuple[PageStore, list[bytes]]:
    store = contexts.open_pages(fingerprint="m/1", page_tokens=4, page_bytes=64)
    keys = store.keys(np.arange(4 * n_pages, dtype=np.int32))
    for at, key in enumerate(keys):
        store.add(key, keys[at - 1] if at else None, lambda page: page.fill(7))
    return store, keys


def test_what_is_pinned_survives_and_is_let_go_by_its_name(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path)
    store, keys = _filled(contexts)
    assert contexts.pin("m", "snapshot:a", keys) == 0, "that is another model"
    assert contexts.pin("m/1", "snapshot:a", keys) == 3
    later = manager_in(tmp_path)  # the pages were synced: nothing needs to end well
    store = later.open_pages(fingerprint="m/1", page_tokens=4, page_bytes=64)
    assert store.n_known(keys) == 3
    assert [info.n_pins for info in later.statistics().values()] == [1]
    later.unpin("snapshot:a")
    assert [info.n_pins for info in later.statistics().values()] == [0]


def test_a_pin_of_a_model_that_does_not_run_is_let_go_as_well(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path)
    _, keys = _filled(contexts)
    contexts.pin("m/1", "snapshot:a", keys)
    manager_in(tmp_path).unpin("snapshot:a")
    later = manager_in(tmp_path)
    _filled(later)
    assert [info.n_pins for info in later.statistics().values()] == [0]


def test_a_pin_that_nobody_wants_goes_when_its_store_is_opened(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path)
    _, keys = _filled(contexts)
    for name in ("snapshot:a", "snapshot:b"):
        contexts.pin("m/1", name, keys)
    config = ContextConfig(1 << 20, 1 << 20)
    later = ContextManager(config, tmp_path, lambda name: name == "snapshot:b")
    _filled(later)
    assert [info.n_pins for info in later.statistics().values()] == [1]


@pytest.mark.parametrize(
    ("opened_days", "written_days", "n_left"), [(15, 15, 1), (13, 15, 3), (15, 13, 3)]
)
def test_pages_of_a_model_that_runs_no_more_go_from_the_disk_but_for_pinned_ones(
    tmp_path: Path, opened_days: int, written_days: int, n_left: int
) -> None:
    contexts = manager_in(tmp_path)
    _, keys = _filled(contexts)
    contexts.pin("m/1", "snapshot:a", keys[:1])
    contexts.pin("m/1", "gone", keys[:2])
    contexts.flush()
    (folder,) = tmp_path.iterdir()
    now_unix_s = folder.stat().st_mtime
    for path in folder.rglob("*.page"):
        written = now_unix_s - written_days * 86_400
        os.utime(path, (written, written))
    opened = now_unix_s - opened_days * 86_400
    os.utime(folder, (opened, opened))
    later = ContextManager(
        ContextConfig(1 << 20, 1 << 20), tmp_path, lambda name: name == "snapshot:a"
    )
    later.open_pages(fingerprint="other", page_tokens=4, page_bytes=64)
    assert len(list(folder.rglob("*.page"))) == n_left
    store = later.open_pages(fingerprint="m/1", page_tokens=4, page_bytes=64)
    assert store.n_known(keys) == n_left


def test_pages_of_a_model_that_a_kernel_used_for_weeks_are_there_for_the_next(
    tmp_path: Path,
) -> None:
    contexts = manager_in(tmp_path)
    _, keys = _filled(contexts)
    contexts.flush()
    (folder,) = tmp_path.iterdir()
    long_ago = folder.stat().st_mtime - 20 * 86_400
    for path in (*folder.rglob("*.page"), folder):
        os.utime(path, (long_ago, long_ago))
    contexts.flush()
    later = manager_in(tmp_path)
    later.open_pages(fingerprint="other", page_tokens=4, page_bytes=64)
    store = later.open_pages(fingerprint="m/1", page_tokens=4, page_bytes=64)
    assert store.n_known(keys) == len(keys)


def test_pages_that_the_disk_does_not_take_are_not_pinned_in_memory(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path, disk_bytes=2 * (64 + HEAD_BYTES))
    _, keys = _filled(contexts)
    assert contexts.pin("m/1", "snapshot:a", keys) == 2
    [info] = contexts.statistics().values()
    assert (info.n_pins, info.n_pinned) == (1, 2)
    without = manager_in(tmp_path / "other", disk_bytes=0)
    _, keys = _filled(without)
    assert without.pin("m/1", "snapshot:a", keys) == 0
    [info] = without.statistics().values()
    assert (info.n_pins, info.n_pinned) == (0, 0)


def test_pinning_the_same_pages_again_loses_none_of_them(tmp_path: Path) -> None:
    contexts = manager_in(tmp_path)
    store, full = _filled(contexts)
    other = contexts.open_pages(fingerprint="m/2", page_tokens=4, page_bytes=64)
    keys = store.keys(np.arange(14, dtype=np.int32), tail=True)
    store.add(keys[3], full[2], lambda page: page.fill(9))
    assert contexts.pin("m/1", "snapshot:a", keys) == 4
    assert contexts.pin("m/1", "snapshot:a", keys) == 4, "the last page is filled in part"
    (elsewhere,) = other.keys(np.arange(4, dtype=np.int32))
    other.add(elsewhere, None, lambda page: page.fill(7))
    assert contexts.pin("m/2", "snapshot:a", [elsewhere]) == 1
    assert [info.n_pins for info in contexts.statistics().values()] == [0, 1]
    assert contexts.pin("m/2", "snapshot:a", []) == 0
    assert [info.n_pins for info in contexts.statistics().values()] == [0, 0]
