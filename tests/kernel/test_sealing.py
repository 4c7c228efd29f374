import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import ProgramFailed
from aios.kernel.sealing import PIECE_CHARS, Sealer

KEY = bytes(range(32))
CANARY = "canary-5f3a9c-value"


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=300), max_size=8))
def test_what_is_sealed_opens_as_it_was(env: dict[str, str]) -> None:
    assert Sealer(KEY).open(Sealer(KEY).seal(env)) == env


def test_nothing_of_it_shows_and_no_two_are_alike() -> None:
    sealer, env = Sealer(KEY), {"CANARY": CANARY * 1000}
    one, other = sealer.seal(env), sealer.seal(env)
    assert one != other
    assert "anary" not in repr(one)
    assert all(len(value) <= PIECE_CHARS for value in one.values())
    assert sealer.open(one) == env


def test_what_was_never_sealed_is_given_back() -> None:
    assert Sealer(KEY).open({"PATH": "/bin"}) == {"PATH": "/bin"}
    assert Sealer(KEY).seal({}) == {}


@pytest.mark.parametrize("at", [0, 20, -1])
def test_another_key_or_a_changed_byte_opens_nothing(at: int) -> None:
    sealed = Sealer(KEY).seal({"CANARY": CANARY})
    with pytest.raises(ProgramFailed, match="another key"):
        Sealer(bytes(32)).open(sealed)
    name, text = next(iter(sealed.items()))
    place = at % (len(text) - 4)
    changed = text[:place] + ("B" if text[place] != "B" else "C") + text[place + 1 :]
    with pytest.raises(ProgramFailed, match="another key"):
        Sealer(KEY).open({name: changed})
    with pytest.raises(ProgramFailed, match="another key"):
        Sealer(KEY).open({name: "?"})
