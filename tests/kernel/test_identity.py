import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Pid
from aios.errors import Unauthenticated
from aios.kernel.identity import TOKEN_PREFIX, Tokens, split_guest


def test_a_token_is_long_random_and_found() -> None:
    tokens = Tokens()
    first, second = tokens.issue(Pid(2)), tokens.issue(Pid(3))
    assert first != second
    assert first.startswith(TOKEN_PREFIX)
    assert len(first) >= len(TOKEN_PREFIX) + 43, "256 bits in base64"
    assert (tokens.find(first), tokens.find(second)) == (2, 3)


def test_a_new_token_voids_the_one_before_and_revoking_leaves_nothing() -> None:
    tokens = Tokens()
    old = tokens.issue(Pid(2))
    new = tokens.issue(Pid(2))
    assert tokens.find(old) is None
    tokens.revoke(Pid(2))
    tokens.revoke(Pid(2))
    assert tokens.find(new) is None
    assert len(tokens) == 0


def test_no_token_is_kept_in_clear() -> None:
    tokens = Tokens()
    token = tokens.issue(Pid(2))
    assert token not in repr(vars(tokens))


@given(st.text(max_size=300))
def test_no_other_text_is_a_token(text: str) -> None:
    tokens = Tokens()
    tokens.issue(Pid(2))
    assert tokens.find(text) is None


def test_a_guest_is_named_after_the_dot() -> None:
    assert split_guest("aios_abc.alice") == ("aios_abc", "alice")
    assert split_guest("aios_abc") == ("aios_abc", "")


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "a.b", "-a", "x" * 65, "ä"])
def test_a_malformed_guest_name_is_refused(name: str) -> None:
    with pytest.raises(Unauthenticated, match="malformed"):
        split_guest(f"aios_abc.{name}")
