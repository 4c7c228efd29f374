"""Texts for simple patterns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.engine.pattern import MAX_CHARS, text_of_pattern
from aios.errors import InvalidCall, Unsupported

ATOMS = st.sampled_from([
    "a", "Z", "7", " ", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\.", r"\[", r"\n", ".", "[a-f]", "[^a-f]", "[0-9_]",
    "[]x]", "[^]x]", "[a-]", r"[\d-]", r"[\]a]", "-", "é",
])  # fmt: skip
QUANTIFIERS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{0,3}", "{2,5}", "+?", "*?"])


def joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(parts, min_size=1, max_size=4).map("".join)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    branches = st.lists(joined(inner), min_size=1, max_size=3).map("|".join)
    opened = st.sampled_from(["(", "(?:"])
    return st.builds(lambda o, b, q: f"{o}{b}){q}", opened, branches, QUANTIFIERS)


PATTERNS = joined(st.recursive(st.builds(str.__add__, ATOMS, QUANTIFIERS), grown, max_leaves=6))


@given(PATTERNS)
def test_the_text_matches_the_pattern(pattern: str) -> None:
    assert re.fullmatch(pattern, text_of_pattern(pattern))


@given(PATTERNS)
def test_anchors_at_the_ends_change_nothing(pattern: str) -> None:
    text = text_of_pattern(f"^(?:{pattern})$")
    assert text == text_of_pattern(pattern)


@given(st.text(alphabet=r"ab()[]{}|?*+^$\d-,0123.", max_size=12))
def test_any_other_pattern_is_refused_or_matched(pattern: str) -> None:
    try:
        text = text_of_pattern(pattern)
    except (InvalidCall, Unsupported):
        return
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    "pattern", ["(", ")", "a)", "[", "[a", "a{2", "a{x}", "a{3,2}", "*a", "+", "\\", "[z-a]", "(a"]
)
def test_malformed_patterns_are_the_callers_mistake(pattern: str) -> None:
    with pytest.raises(InvalidCall):
        text_of_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"\bword\b", "(?=a)", "(?i)a", "a^b", "a$b", r"\p{L}", "a**", "[a[b]]", "[a&&b]", "(?P<n>a)"]
)  # fmt: skip
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported):
        text_of_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["((((a{99}){99}){99}){99}){99}", "a{999999999}", "(" * 60 + "a" + ")" * 60]
)
def test_huge_patterns_cost_nothing(pattern: str) -> None:
    with pytest.raises(Unsupported):
        text_of_pattern(pattern)
    assert len(text_of_pattern(f"a{{{MAX_CHARS}}}")) == MAX_CHARS
