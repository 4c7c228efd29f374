from pathlib import Path
from threading import Event, Thread  # noqa: TID251 - the store is for several threads
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.kernel.context import pins as of_pins
from aios.kernel.context.files import PageFiles
from aios.kernel.context.pages import PageStore
from aios.kernel.context.pins import Pins


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_page_is_pinned_until_the_last_name_lets_go() -> None:
    pins = Pins()
    assert pins.put("a", [key(1), key(2)]) == []
    assert pins.put("b", [key(2)]) == []
    assert pins.drop("a") == [key(1)]
    assert key(2) in pins
    assert pins.drop("b") == [key(2)]
    assert pins.drop("b") == []
    assert len(pins) == pins.n_keys == 0


def test_a_name_that_pins_anew_lets_go_what_it_pinned_before() -> None:
    pins = Pins()
    pins.put("a", [key(1), key(2)])
    assert pins.put("a", [key(2), key(3)]) == [key(1)]
    assert [number for number in range(5) if key(number) in pins] == [2, 3]
    pins.check_invariants()


def test_what_was_written_down_is_pinned_by_the_next_kernel(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.put("snapshot: naïve/../name", [key(1)])
    pins.put("suspended", [key(2)])
    assert pins.write("snapshot: naïve/../name")
    assert pins.settle("snapshot: naïve/../name")
    later = Pins(tmp_path)
    assert key(1) in later
    assert key(2) not in later
    assert later.drop("snapshot: naïve/../name") == [key(1)]
    assert len(Pins(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_pin_that_was_dropped_while_it_was_written_leaves_no_file(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.put("a", [key(1)])
    assert pins.write("a")
    pins.put("b", [key(2)])
    assert pins.drop("a") == [key(1)]
    assert not pins.settle("a")
    pins.check_invariants()
    assert list(tmp_path.iterdir()) == []


def store_in(folder: Path) -> PageStore:
    files = PageFiles(folder, page_bytes=64, budget_bytes=6400)
    return PageStore(
        fingerprint="model", page_tokens=4, page_bytes=64, budget_bytes=640, files=files
    )


@pytest.mark.parametrize("is_dropped", [False, True])
def test_while_a_pin_is_written_down_others_use_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dropped: bool
) -> None:
    store = store_in(tmp_path)
    keys = store.keys(np.arange(4, dtype=np.int32))
    store.add(keys[0], None, lambda frame: frame.fill(1))
    is_syncing, may_sync = Event(), Event()

    def sync_slowly(_: Path) -> None:
        is_syncing.set()
        may_sync.wait(2)

    monkeypatch.setattr(of_pins, "sync_folder", sync_slowly)
    n_pinned: list[int] = []
    writer = Thread(target=lambda: n_pinned.append(store.pin("mine", keys, synced=True)))
    writer.start()
    assert is_syncing.wait(5)
    begun_s = perf_counter()
    assert store.n_known(keys) == 1
    if is_dropped:
        store.unpin("mine")
    assert perf_counter() - begun_s < 1, "it waited for the disk"
    may_sync.set()
    writer.join(5)
    assert n_pinned == [0 if is_dropped else 1]
    store.check_invariants()
    assert store_in(tmp_path).statistics().n_pins == (0 if is_dropped else 1)


def test_what_is_not_pinned_or_has_no_folder_is_not_written_down(tmp_path: Path) -> None:
    assert not Pins(tmp_path).write("nobody")
    pins = Pins()
    pins.put("a", [key(1)])
    assert not pins.write("a")


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    pins = Pins(blocked)
    pins.put("a", [key(1)])
    assert not pins.write("a")
    assert key(1) in pins


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 10_000), flip=st.integers(1, 255), cut_at=st.integers(0, 10_000))
def test_a_torn_or_altered_file_pins_nothing(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int, cut_at: int
) -> None:
    folder = tmp_path_factory.mktemp("pins")
    pins = Pins(folder)
    pins.put("a", [key(1), key(2)])
    pins.write("a")
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[where % len(whole)] ^= flip
    for data in (bytes(altered), whole[: cut_at % len(whole)]):
        path.write_bytes(data)
        assert len(Pins(folder)) == 0
        assert not path.exists()
