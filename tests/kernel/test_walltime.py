from random import Random, SystemRandom

from aios.abi.types import Pid
from aios.kernel.budget import Good, Ledger
from aios.kernel.walltime import WallTimes


def family() -> tuple[Ledger, WallTimes]:
    """1 is the owner, 2 a process of it, 3 a child of that."""
    ledger = Ledger()
    for pid in (1, 2, 3):
        ledger.open(Pid(pid), Pid(pid - 1) if pid > 1 else None, {})
    return ledger, WallTimes(ledger)


def test_time_passes_while_one_of_a_tree_is_at_work_and_only_once() -> None:
    ledger, walls = family()
    parent, child = ledger.get(Pid(2)), ledger.get(Pid(3))
    walls.count(parent, 1, 10.0)
    walls.count(child, 1, 11.0)
    walls.count(parent, -1, 12.0)  # stopped; the child goes on
    assert walls.spent_ms(parent, 13.0) == 3_000
    assert walls.spent_ms(child, 13.0) == 2_000
    walls.count(child, -1, 14.0)
    assert walls.spent_ms(parent, 99.0) == 4_000
    assert walls.spent_ms(child, 99.0) == 3_000


def test_what_is_over_is_told_for_whom_the_limit_is_and_counts_for_all_below() -> None:
    ledger, walls = family()
    parent, child = ledger.get(Pid(2)), ledger.get(Pid(3))
    ledger.set_limits(Pid(2), {Good.WALL: 1_500})
    assert not walls.count(ledger.get(Pid(1)), 1, 0.0)
    assert walls.count(child, 1, 0.0)
    assert walls.left_ms(child, 1.0) == 500
    assert walls.next_s(1.0) == 0.5
    assert walls.exhausted(1.25) == []
    assert walls.exhausted(1.5) == [parent]
    walls.count(child, -1, 1.5)
    assert walls.exhausted(2.0) == []  # nothing is at work any more
    ledger.set_limits(Pid(2), {Good.WALL: 2_000})
    assert walls.count(child, 1, 50.0)
    assert walls.next_s(50.0) == 0.5
    ledger.set_limits(Pid(2), {})
    assert not walls.note_limit(parent)
    assert walls.running() == []
    assert walls.left_ms(child, 60.0) is None


def test_clocks_agree_with_a_plain_count_whatever_starts_and_stops() -> None:
    seed = SystemRandom().randrange(1 << 32)
    draw = Random(seed)  # noqa: S311 - to be run again
    ledger, walls = family()
    ledger.set_limits(Pid(2), {Good.WALL: 50_000})
    at_work = dict.fromkeys((2, 3), False)
    passed = dict.fromkeys((2, 3), 0)
    for now in range(400):
        pid = draw.choice([2, 3])
        if draw.random() < 0.5:
            at_work[pid] = not at_work[pid]
            walls.count(ledger.get(Pid(pid)), 1 if at_work[pid] else -1, float(now))
        walls.check_invariants()
        passed[2] += at_work[2] or at_work[3]
        passed[3] += at_work[3]
        for each, seconds in passed.items():
            assert walls.spent_ms(ledger.get(Pid(each)), now + 1.0) == 1000 * seconds, seed
        is_over = passed[2] >= 50 and (at_work[2] or at_work[3])
        assert bool(walls.exhausted(now + 1.0)) == is_over, seed
