from pathlib import Path

import numpy as np

from aios.config import ContextConfig
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
