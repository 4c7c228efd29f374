from aios.kernel.scheduler.lane import Lane


def put(lane: Lane, ticket: int, n_tokens: int, *, has_begun: bool = False) -> None:
    rank = (float(ticket),)
    lane.put(ticket, rank, n_context_tokens=n_tokens, has_begun=has_begun)


def grant_best(lane: Lane) -> int | None:
    best = lane.best()
    if best is None:
        return None
    rank, ticket = best
    lane.grant(ticket, rank)
    return ticket


def test_a_call_that_would_outgrow_the_budget_waits_until_there_is_room() -> None:
    lane = Lane(capacity=8, budget_tokens=1000)
    for ticket, n_tokens in ((1, 600), (2, 300), (3, 200), (4, 50)):
        put(lane, ticket, n_tokens)
    assert [grant_best(lane), grant_best(lane)] == [1, 2]
    assert lane.best() is None, "nobody passes the third, or it would never have room"
    assert lane.working_set_tokens == 900
    lane.end_turn(2)
    lane.drop(2)
    assert [grant_best(lane), grant_best(lane)] == [3, 4]
    lane.check_invariants()


def test_a_call_that_was_begun_goes_on_however_full_it_is() -> None:
    lane = Lane(capacity=2, budget_tokens=100)
    put(lane, 1, 90)
    assert grant_best(lane) == 1
    lane.end_turn(1)
    put(lane, 1, 90, has_begun=True)
    put(lane, 0, 50)
    assert grant_best(lane) == 1
    assert lane.working_set_tokens == 90
    assert grant_best(lane) is None


def test_the_first_call_has_room_however_long_it_is() -> None:
    lane = Lane(capacity=2, budget_tokens=10)
    put(lane, 1, 5000)
    assert grant_best(lane) == 1


def test_without_a_budget_there_is_room_for_all() -> None:
    lane = Lane(capacity=3)
    for ticket in (1, 2, 3):
        put(lane, ticket, 1 << 40)
    assert [grant_best(lane) for _ in range(3)] == [1, 2, 3]
    lane.check_invariants()
