from collections import Counter

from aios.bench.tools_load import LoadShape, Use, ideal_length, make_load

SHAPE = LoadShape(n_agents=12, n_turns=20, n_calls=2)


def test_a_load_has_its_shape_and_repeats() -> None:
    load = make_load(SHAPE, 3)
    uses = [use for turns in load for turn in turns for use in turn]
    assert load == make_load(SHAPE, 3) != make_load(SHAPE, 4)
    assert len(uses) == SHAPE.n_all == 480
    own = Counter(use.file.startswith("own") for use in uses)
    assert 0.33 < own[True] / len(uses) < 0.47
    assert all(use.is_write for use in uses if use.file.startswith("own"))


def test_the_ideal_schedule_is_that_of_the_writers_when_all_write_one_file() -> None:
    one = Use("f", is_write=True)
    assert ideal_length((((one,), (one,)), ((one,), (one,)))) == 4
    assert ideal_length((((Use("a", is_write=True), Use("b", is_write=True)),),)) == 1
    readers = tuple(((Use("f", is_write=False),),) for _ in range(5))
    assert ideal_length((*readers, ((one,),))) == 2
