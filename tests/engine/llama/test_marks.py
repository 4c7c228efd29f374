import re
import time

from hypothesis import given
from hypothesis import strategies as st

from aios.engine.llama.marks import any_of, starts_of

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
