import re
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aios.engine.llama.marks import Special, any_of, cut, cuts_of, starts_of

TEXTS = st.lists(st.text("ab<", min_size=1, max_size=4), max_size=6)


@given(TEXTS, st.text("ab<", max_size=12))
def test_a_text_is_found_wherever_one_of_many_begins(texts: list[str], text: str) -> None:
    found = [each.start() for each in starts_of(texts).finditer(text)]
    long = tuple(each for each in texts if len(each) > 1)
    assert found == [at for at in range(len(text)) if text.startswith(long, at)]
    one = re.compile(any_of(texts))
    for at in range(len(text)):
        assert bool(one.match(text, at)) == text.startswith(tuple(texts), at)


def test_a_vocabulary_with_thousands_of_special_tokens_is_searched_as_fast_as_any() -> None:
    pattern = starts_of([f"<unused{number}>" for number in range(6242)])
    start_s = time.thread_time()
    assert pattern.sub("", "<" * 50_000) == "<" * 50_000
    assert time.thread_time() - start_s < 1.0


SPECIALS = st.lists(
    st.builds(Special, st.text("abc ", min_size=1, max_size=3), has_lstrip=st.booleans()),
    max_size=3,
    unique_by=lambda token: token.text,
)


def partition(text: str, tokens: list[Special], *, has_rstrip: bool) -> list[str]:
    """What llama.cpp makes of a text first: special tokens, the longest first, and what is left between them."""
    parts = [(text, False)] if text else []
    for token in sorted(tokens, key=lambda token: len(token.text), reverse=True):
        found: list[tuple[str, bool]] = []
        for part, is_token in parts:
            if is_token:
                found.append((part, True))
                continue
            before, *after = part.split(token.text)
            for rest in after:
                found += [(before.rstrip() if token.has_lstrip else before, False)]
                found += [(token.text, True)]
                before = rest.lstrip() if has_rstrip else rest
            found.append((before, False))
        parts = [each for each in found if each[0]]
    return [part for part, _ in parts]


@settings(max_examples=300)
@given(SPECIALS, st.text("abc ", max_size=8), st.booleans())
@example([Special("ab"), Special("bc")], "abc", False)
@example([Special("ab"), Special("bcd")], "xabcd", False)
@example([Special("abc"), Special(" b")], "abc b", True)
def test_a_text_falls_into_the_same_special_tokens_and_rests_where_it_was_cut(
    tokens: list[Special], text: str, has_rstrip: bool
) -> None:
    parts = cut(text, cuts_of(tokens))
    assert "".join(parts) == text
    assert all(parts)
    found = [each for part in parts for each in partition(part, tokens, has_rstrip=has_rstrip)]
    assert found == partition(text, tokens, has_rstrip=has_rstrip)


def test_a_text_is_cut_before_tokens_that_no_other_overlaps() -> None:
    chat = [Special("<|start|>"), Special("<|end|>"), Special("<unk>"), Special("\n\n")]
    text = "<|start|>Hi\n\n<|end|><|start|>"
    assert cut(text, cuts_of(chat)) == ["<|start|>Hi\n\n", "<|end|>", "<|start|>"]
    assert cut(text, cuts_of([])) == [text]
    assert cut("", cuts_of(chat)) == []
