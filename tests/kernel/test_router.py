from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import EngineState
from aios.engine.base import Ability
from aios.kernel.homes import Home
from aios.kernel.router import Candidate, Wish, find_chain, find_named, route

CHAT = frozenset({Ability.CHAT})
SEES = frozenset({Ability.CHAT, Ability.IMAGES})


def engine(
    name: str,
    model: str = "m",
    *,
    state: EngineState = EngineState.READY,
    abilities: frozenset[Ability] | None = CHAT,
    n_calls: int = 0,
    priority: int = 0,
    fallback: tuple[str, ...] = (),
) -> Candidate:
    return Candidate(
        name,
        frozenset({model}),
        state,
        abilities,
        n_slots=2,
        n_calls=n_calls,
        call_tokens=100.0,
        priority=priority,
        fallback=fallback,
        pages=name,
    )


def names(engines: list[Candidate], wish: Wish, **rest: object) -> list[str]:
    home, tried = rest.get("home"), rest.get("tried", frozenset())
    assert home is None or isinstance(home, Home)
    assert isinstance(tried, frozenset)
    return [each.name for each in route(engines, wish, home=home, tried=tried)]


def test_the_default_is_the_first_and_an_engines_own_name_comes_before_models() -> None:
    engines = [engine("a", "x"), engine("b", "a")]
    assert [e.name for e in find_named(engines, "")] == ["a"]
    assert [e.name for e in find_named(engines, "default")] == ["a"]
    assert [e.name for e in find_named(engines, "a")] == ["a"]
    assert [e.name for e in find_named(engines, "x")] == ["a"]
    assert find_named(engines, "nobody") == []


def test_of_equals_the_less_busy_is_first_and_priority_comes_before_load() -> None:
    assert names([engine("a", n_calls=1), engine("b")], Wish("m")) == ["b", "a"]
    assert names([engine("a", n_calls=9, priority=1), engine("b")], Wish("m")) == ["a", "b"]


def test_a_process_stays_where_its_pages_are_until_the_wait_costs_more_than_they_save() -> None:
    home = Home("a", n_tokens=150)
    # a call of 100 tokens on 2 slots: one more call waits for half of that for each call over the slots, itself included
    assert names([engine("a", n_calls=3), engine("b")], Wish("m"), home=home)[0] == "a"
    assert names([engine("a", n_calls=5), engine("b")], Wish("m"), home=home)[0] == "b"


def test_what_lacks_an_ability_is_left_out_unless_all_lack_it() -> None:
    engines = [engine("a", fallback=("b",)), engine("b", "n", abilities=SEES)]
    assert names(engines, Wish("m", SEES)) == ["b"]
    assert names(engines[:1], Wish("m", SEES)) == ["a"], "it says what is missing"


def test_engines_that_are_down_or_were_tried_give_way_in_the_stated_order() -> None:
    down = engine("a", state=EngineState.DOWN, fallback=("c", "b"))
    engines = [down, engine("b", "n"), engine("c", "o", n_calls=50)]
    assert names(engines, Wish("m")) == ["c", "b"], "the stated order, whatever the load"
    assert names(engines, Wish("m"), tried=frozenset({"c"})) == ["b"]
    assert names(engines, Wish("m", may_fall_back=False)) == []


def test_one_that_runs_comes_before_one_that_is_loaded_and_that_before_a_fallback() -> None:
    loading = engine("a", state=EngineState.LOADING, abilities=None, fallback=("c",))
    assert names([loading, engine("b"), engine("c", "n")], Wish("m")) == ["b", "a", "c"]


def test_a_circle_of_fallbacks_ends() -> None:
    engines = [engine("a", fallback=("b",)), engine("b", "n", fallback=("a", "gone"))]
    assert [e.name for e in find_chain(engines, engines[:1])] == ["a", "b"]


ENGINE_NAMES = ("a", "b", "c", "d", "e")
fleets = st.lists(
    st.builds(
        engine,
        st.sampled_from(ENGINE_NAMES),
        st.sampled_from(("m", "n")),
        state=st.sampled_from(EngineState),
        abilities=st.sampled_from((None, CHAT, SEES)),
        n_calls=st.integers(0, 30),
        priority=st.integers(-2, 2),
        fallback=st.lists(st.sampled_from((*ENGINE_NAMES, "gone")), max_size=3).map(tuple),
    ),
    max_size=5,
    unique_by=lambda each: each.name,
)


@given(
    fleets,
    st.builds(Wish, st.sampled_from(("", "m", "n", "a", "x")), st.sampled_from((CHAT, SEES))),
    st.none() | st.builds(Home, st.sampled_from(ENGINE_NAMES), st.integers(0, 10_000)),
    st.frozensets(st.sampled_from(ENGINE_NAMES)),
)
def test_whatever_the_fleet_each_engine_comes_once_and_none_that_cannot_serve(
    fleet: list[Candidate], wish: Wish, home: Home | None, tried: frozenset[str]
) -> None:
    found = route(fleet, wish, home=home, tried=tried)
    chain = find_chain(fleet, find_named(fleet, wish.model))
    assert len({each.name for each in found}) == len(found)
    assert all(each in chain and each.name not in tried for each in found)
    assert all(each.state is not EngineState.DOWN for each in found)
    able = [each for each in chain if each.abilities is None or wish.needs <= each.abilities]
    assert all(each in (able or chain) for each in found)
    usable = [e for e in able or chain if e.state is not EngineState.DOWN and e.name not in tried]
    assert len(found) == len(usable), "nobody who could serve is forgotten"


@given(fleets, st.sampled_from(("", "m", "n")))
def test_trying_one_after_the_other_reaches_all_and_ends(
    fleet: list[Candidate], model: str
) -> None:
    tried: frozenset[str] = frozenset()
    first = route(fleet, Wish(model))
    while found := route(fleet, Wish(model), tried=tried):
        tried |= {found[0].name}
    assert tried == {each.name for each in first}
