from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.retrieval.passages import TARGET_CHARS, cut

LINES = st.lists(
    st.one_of(st.just(""), st.just("# head"), st.text("ab c", max_size=300), st.just("x" * 2_500)),
    max_size=60,
)


@given(LINES)
def test_every_line_with_text_is_in_a_passage_and_none_is_long(lines: list[str]) -> None:
    found = list(cut(lines))
    covered = {number for each in found for number in range(each.first, each.last + 1)}
    assert {n for n, line in enumerate(lines, 1) if line.strip()} <= covered
    assert all(len(each.text) <= 2 * TARGET_CHARS for each in found)
    assert [each.first for each in found] == sorted(each.first for each in found)


@given(LINES)
def test_a_passage_has_the_text_of_its_lines(lines: list[str]) -> None:
    for each in cut(lines):
        assert each.text in "\n".join(lines[each.first - 1 : each.last])


def test_a_cut_comes_before_a_heading_rather_than_in_the_middle() -> None:
    lines = ["first " * 20] * 5 + ["# second"] + ["second " * 20] * 5
    assert [each.first for each in cut(lines)][:2] == [1, 6]


def test_cutting_takes_time_linear_in_the_lines() -> None:
    assert len(list(cut([""] * 200_000 + ["end"]))) == 1
