from hypothesis import example, given
from hypothesis import strategies as st

from aios.kernel.storage.names import shown_name
from aios.kernel.storage.paths import parse


@example(b"\xda\xcc\xa8")
@given(
    st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name)
)
def test_what_is_shown_is_one_canonical_part_of_a_path(name: bytes) -> None:
    shown = shown_name(name)
    if shown and name not in {b".", b".."}:
        assert parse(f"/notes/{shown}", "/") == f"/notes/{shown}"
        assert shown_name(shown.encode()) == shown


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_a_name_that_a_path_may_have_is_shown_as_it_is(name: str) -> None:
    try:
        path = parse(f"/notes/{name}", "/")
    except Exception:  # noqa: BLE001 - only what is a path is asked about
        return
    if path == f"/notes/{name}" and "/" not in name:
        assert shown_name(name.encode()) == name


def test_what_cannot_be_shown_is_spelt_out_or_left_out() -> None:
    assert shown_name(b"caf\xe9") == "caf%E9"
    assert shown_name(b"a\nb\\c") == "a%0Ab%5Cc"
    assert shown_name("cafe\u0301".encode()) == "caf\u00e9"
    assert shown_name("\u2025".encode()) == "", "two dots in one character"
    assert shown_name("a\u2100b".encode()) == "", "a slash inside a character"
