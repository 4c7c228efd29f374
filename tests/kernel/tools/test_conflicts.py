from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aios.abi.types import Pid
from aios.kernel.tools.conflicts import AGE, CREDIT, MAX_PASSED, Claim, Conflicts, Keys
from aios.kernel.tools.footprint import Footprint, Key

MAX_WAITING = 12
A, B = ("", "a"), ("", "b")

keys = st.lists(st.sampled_from(["", "a", "b"]), max_size=3).map(tuple)
footprints = st.builds(Footprint, st.frozensets(keys, max_size=2), st.frozensets(keys, max_size=2))


def reading(*found: Key) -> Footprint:
    return Footprint(reads=frozenset(found))


def writing(*found: Key) -> Footprint:
    return Footprint(writes=frozenset(found))


class Traffic(RuleBasedStateMachine):
    """Calls arrive and leave in any order; beside the core a plain list says what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Conflicts(MAX_WAITING)
        self.claims: dict[int, Claim] = {}
        self.running: set[int] = set()
        self.waiting: list[int] = []
        self.last_id = 0

    @rule(
        footprint=footprints,
        pid=st.integers(1, 3),
        limit=st.sampled_from([0, 0, 1, 2]),
        family=st.sampled_from(["", "ann"]),
    )
    def arrive(self, footprint: Footprint, pid: int, limit: int, family: str) -> None:
        self.last_id += 1
        claim = Claim(self.last_id, Pid(pid), f"tool{limit}", footprint, limit, family)
        begun = self.core.arrive(claim)
        if begun is None:
            assert len(self.waiting) == MAX_WAITING
            return
        self.claims[claim.id] = claim
        self.waiting.append(claim.id)
        self.begin(begun)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if not self.claims:
            return
        gone = data.draw(st.sampled_from(sorted(self.claims)))
        begun = self.core.leave(gone)
        del self.claims[gone]
        self.running.discard(gone)
        if gone in self.waiting:
            self.waiting.remove(gone)
        self.begin(begun)

    def begin(self, begun: list[int]) -> None:
        for each in begun:
            self.waiting.remove(each)  # raises if it did not wait
            self.running.add(each)

    @invariant()
    def nothing_that_conflicts_runs(self) -> None:
        running = [self.claims[each] for each in self.running]
        for i, one in enumerate(running):
            assert not any(one.footprint.conflicts(other.footprint) for other in running[:i])
        for limit, family in product((1, 2), ("", "ann")):
            places = (f"tool{limit}", family)
            assert sum(each.places == places for each in running) <= limit

    @invariant()
    def who_waits_has_a_reason(self) -> None:
        for each in self.waiting:
            claim = self.claims[each]
            others = [
                self.claims[other] for other in (*self.running, *self.waiting) if other != each
            ]
            is_full = claim.max_parallel and (
                sum(other.places == claim.places for other in others) >= claim.max_parallel
            )
            assert is_full or any(claim.footprint.conflicts(other.footprint) for other in others)

    @invariant()
    def the_core_agrees_with_itself(self) -> None:
        self.core.check_invariants()
        counts = self.core.counts()
        assert sum(running for running, _ in counts.values()) == len(self.running)
        assert sum(waiting for _, waiting in counts.values()) == len(self.waiting)

    def teardown(self) -> None:
        """When all have left, everybody has run who did not leave before."""
        while self.running:
            gone = min(self.running)
            begun = self.core.leave(gone)
            self.running.remove(gone)
            del self.claims[gone]
            self.begin(begun)
        assert not self.waiting, "somebody waits for nobody"


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(footprints, max_size=5), footprints)
def test_looking_up_finds_what_comparing_finds(held: list[Footprint], wanted: Footprint) -> None:
    taken = Keys()
    for each in held:
        taken.add(each)
    assert taken.is_free(wanted) == (not any(wanted.conflicts(each) for each in held))
    for each in held:
        taken.add(each, -1)
    assert taken == Keys(), "nothing is left behind"


def test_readers_share_and_a_writer_waits_for_all_of_them() -> None:
    core = Conflicts(MAX_WAITING)
    assert core.arrive(Claim(1, Pid(1), "t", reading(A))) == [1]
    assert core.arrive(Claim(2, Pid(2), "t", reading(A))) == [2]
    assert core.arrive(Claim(3, Pid(3), "t", writing((*A, "x")))) == []
    assert [claim.id for claim in core.blockers(3)] == [1, 2]
    assert core.leave(1) == []
    assert core.leave(2) == [3]


def test_a_reader_joins_those_that_began_a_moment_ago_and_not_those_about_to_end() -> None:
    core = Conflicts(MAX_WAITING)
    core.arrive(Claim(1, Pid(1), "slow", reading(A)), 0.0)
    core.arrive(Claim(2, Pid(2), "quick", reading(A)), 0.0)
    core.leave(2, 1.0)
    core.leave(1, 10.0)  # so long they take
    core.arrive(Claim(3, Pid(1), "slow", reading(A)), 10.0)
    assert core.arrive(Claim(4, Pid(2), "slow", writing(A)), 10.0) == []
    assert core.arrive(Claim(5, Pid(3), "slow", reading(A)), 14.0) == [5], (
        "the writer waits 4 s more"
    )
    assert core.arrive(Claim(6, Pid(4), "slow", reading(A)), 23.0) == [], "it would be 9 s"
    assert core.arrive(Claim(7, Pid(5), "quick", reading(A)), 23.0) == [7], "it ends before them"
    core.leave(7, 24.0)
    core.leave(3, 20.0)
    assert core.leave(5, 24.0) == [4]
    core.check_invariants()


def test_a_stream_of_readers_does_not_keep_a_writer_out() -> None:
    core = Conflicts(1_000)
    core.arrive(Claim(1, Pid(1), "t", reading(A)))
    assert core.arrive(Claim(2, Pid(2), "t", writing(A))) == []
    n_before, running = 0, [1]
    for reader in range(3, 100):
        begun = core.arrive(Claim(reader, Pid(reader), "t", reading(A)))
        assert begun is not None
        running += begun
        n_before += len(begun)
        for each in core.leave(running.pop(0)) if len(running) > 1 else []:
            running.append(each)
    assert n_before == MAX_PASSED, "some join who reads already, and no more"
    begun = [each for done in running for each in core.leave(done)]
    assert begun == [2], "the writer is next"
    assert len(core.leave(2)) == 97 - MAX_PASSED


def test_a_reader_joins_only_readers_of_the_same() -> None:
    core = Conflicts(MAX_WAITING)
    core.arrive(Claim(1, Pid(1), "t", writing(A)))
    assert core.arrive(Claim(2, Pid(2), "t", writing(A))) == []
    assert core.arrive(Claim(3, Pid(3), "t", reading(A))) == []
    assert core.leave(1) == [2], "nobody reads, so the reader waits for its turn"


def test_an_agent_that_asks_for_much_lets_others_in_between() -> None:
    core = Conflicts(1_000)
    core.arrive(Claim(1, Pid(1), "t", writing(A)))
    for greedy in range(2, 102):
        core.arrive(Claim(greedy, Pid(1), "t", writing(A)))
    for n in range(3):
        core.arrive(Claim(200 + n, Pid(2), "t", writing(A)))
    order = [1]
    while order[-1] != 202:
        order += core.leave(order[-1])
    assert len(order) <= 9, "it did not wait for the hundred before it"


def test_who_comes_back_has_no_more_than_a_little_credit() -> None:
    core = Conflicts(1_000)
    core.arrive(Claim(1, Pid(1), "t", writing(A)))
    core.leave(1)
    served = [2]
    for each in range(2, 100):
        core.arrive(Claim(each, Pid(2), "t", writing(A)))
    while len(served) < 50:
        served += core.leave(served[-1])
    for n in range(20):
        core.arrive(Claim(200 + n, Pid(1), "t", writing(A)))
    while 200 + 19 not in served:
        served += core.leave(served[-1])
    between = served[served.index(200) : served.index(219)]
    assert sum(each < 200 for each in between) >= 20 - CREDIT - 2, "they take turns from then on"


def test_newcomers_cannot_overtake_for_ever() -> None:
    core = Conflicts(10_000)
    core.arrive(Claim(1, Pid(1), "t", writing(A)))
    for each in range(2, 7):
        core.arrive(Claim(each, Pid(1), "t", writing(A)))  # the last of these has the worst rank
    last, served, now = 6, [1], 1_000
    while last not in served:
        now += 1
        core.arrive(Claim(now, Pid(now), "t", writing(A)))  # always somebody new
        served += core.leave(served[-1])
    assert len(served) <= 6 * AGE


def test_a_full_tool_makes_others_wait_and_no_other_tool() -> None:
    core = Conflicts(MAX_WAITING)
    assert core.arrive(Claim(1, Pid(1), "one", Footprint(), 1)) == [1]
    assert core.arrive(Claim(2, Pid(2), "one", Footprint(), 1)) == []
    assert core.arrive(Claim(3, Pid(2), "two", Footprint(), 1)) == [3]
    assert [claim.id for claim in core.blockers(2)] == [1]
    assert core.leave(1) == [2]


def test_too_many_are_refused() -> None:
    core = Conflicts(1)
    core.arrive(Claim(1, Pid(1), "t", writing(A)))
    assert core.arrive(Claim(2, Pid(1), "t", writing(A))) == []
    assert core.arrive(Claim(3, Pid(1), "t", writing(B))) is None
