"""How many prompt tokens a load needs at least."""

from aios.bench.least import PAGE_TOKENS, least_computed

HEAD = list(range(2 * PAGE_TOKENS + 5))


def test_a_prompt_that_shares_nothing_is_computed_whole() -> None:
    assert least_computed([[[1, 2, 3]], [[4, 5]]], answer_tokens=8) == 5


def test_a_shared_head_counts_once_by_its_full_pages() -> None:
    first, second = [*HEAD, 900, 901], [*HEAD, 902]
    assert least_computed([[first], [second]], answer_tokens=8) == len(first) + 5 + 1


def test_a_turn_goes_on_after_the_answer_but_for_its_last_token() -> None:
    answer = [800, 801, 802, 803]
    first = HEAD
    second = [*HEAD, *answer, 700, 701]
    assert least_computed([[first, second]], answer_tokens=4) == len(HEAD) + 1 + 2


def test_a_turn_that_does_not_go_on_keeps_what_is_the_same() -> None:
    second = [*HEAD[:-3], 700, 701, 702, 703]
    assert least_computed([[HEAD, second]], answer_tokens=4) == len(HEAD) + 4


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    prompt = HEAD[: 2 * PAGE_TOKENS]
    assert least_computed([[prompt], [prompt]], answer_tokens=4) == len(prompt) + 1
