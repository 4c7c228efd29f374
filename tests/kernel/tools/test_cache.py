from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.tools.cache import ENTRY_BYTES, Outcome, ResultCache, cache_key


def test_equal_arguments_share_a_key_and_another_version_has_its_own() -> None:
    assert cache_key("v", {"a": 1, "b": [2]}) == cache_key("v", {"b": [2], "a": 1})
    assert cache_key("v", {"a": 1}) != cache_key("w", {"a": 1})
    assert cache_key("v", {"a": 1}) != cache_key("v", {"a": "1"})


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400)), max_size=60))
def test_it_is_bounded_and_gives_what_was_put(steps: list[tuple[int, int]]) -> None:
    cache = ResultCache(4_000)
    for name, length in steps:
        key = cache_key("v", {"n": name})
        found = cache.find(key)
        if found is not None:
            assert found.text.startswith(f"{name} ")
        else:
            cache.put(key, Outcome(f"{name} " + "x" * length))
        cache.check_invariants()


def test_the_least_lately_used_leaves_and_what_is_too_long_is_not_kept() -> None:
    cache = ResultCache(10 * ENTRY_BYTES)
    keys = [cache_key("v", {"n": n}) for n in range(11)]
    for key in keys[:9]:
        cache.put(key, Outcome("x"))
    assert cache.find(keys[0])
    for key in keys[9:]:
        cache.put(key, Outcome("x"))
    assert cache.find(keys[0]), "it was used"
    assert not cache.find(keys[1])
    cache.put(cache_key("v", {"big": 1}), Outcome("x" * 5 * ENTRY_BYTES))
    assert not cache.find(cache_key("v", {"big": 1}))
    assert cache.statistics().n_hits == 2
