from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    later = Pins(tmp_path)
    assert key(1) in later
    assert key(2) not in later
    assert later.drop("snapshot: naïve/../name") == [key(1)]
    assert len(Pins(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []


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
