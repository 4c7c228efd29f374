"""The set that ships with the bench, and the one promise about it that is no matter of time."""

from aios.bench.retrieval import FILE, load, measure_retrieval


def test_words_and_meaning_together_find_at_least_what_each_finds_alone() -> None:
    found = measure_retrieval(load(), is_test=True)
    figures = (
        f"{found.by_both:.4f} both, {found.by_words:.4f} words, {found.by_meaning:.4f} meaning"
    )
    print(figures)  # noqa: T201 - `pytest -s` shows the figures
    assert found.n_questions == 577
    assert found.by_both >= max(found.by_words, found.by_meaning), figures
    assert min(found.by_words, found.by_meaning) > 0.9, figures


def test_the_set_is_whole_and_says_whose_it_is() -> None:
    paragraphs = load()
    assert sum(len(each.notes) for each in paragraphs) == 1_148
    assert sum(len(each.questions) for each in paragraphs) == 1_185
    assert len({each.article for each in paragraphs}) == 48
    for each in paragraphs:
        assert all(0 <= place < len(each.notes) for _, place in each.questions)


def test_its_licence_lies_beside_it() -> None:
    assert "Attribution-ShareAlike" in FILE.with_name("LICENSE.txt").read_text()
    assert "CC BY-SA 4.0" in FILE.with_name("README.md").read_text()
