from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.scheduler.queue import SLACK, RankedQueue


def test_the_best_rank_is_first_and_who_left_is_not() -> None:
    queue = RankedQueue()
    for ticket, rank in ((1, 5.0), (2, 3.0), (3, 4.0)):
        queue.put(ticket, (rank,))
    assert queue.best() == ((3.0,), 2)
    assert queue.discard(2)
    assert not queue.discard(2)
    assert queue.best() == ((4.0,), 3)
    assert len(queue) == 2


def test_a_ticket_that_is_ranked_anew_is_found_at_its_new_place_only() -> None:
    queue = RankedQueue()
    queue.put(1, (1.0,))
    queue.put(2, (2.0,))
    queue.put(1, (3.0,))
    assert queue.best() == ((2.0,), 2)
    queue.discard(2)
    assert queue.best() == ((3.0,), 1)


def test_a_heap_does_not_grow_with_those_that_have_left() -> None:
    queue = RankedQueue()
    for ticket in range(10_000):
        queue.put(ticket, (float(ticket),))
        queue.discard(ticket)
    assert len(queue._heap) <= SLACK + 1


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5) | st.none())))
def test_it_is_a_sorted_dictionary(steps: list[tuple[int, int | None]]) -> None:
    queue, model = RankedQueue(), dict[int, tuple[float, ...]]()
    for ticket, rank in steps:
        if rank is None:
            assert queue.discard(ticket) == (model.pop(ticket, None) is not None)
        else:
            queue.put(ticket, (float(rank),))
            model[ticket] = (float(rank),)
        queue.check_invariants()
        best = min(((rank, ticket) for ticket, rank in model.items()), default=None)
        assert queue.best() == best
        assert set(queue) == set(model)
