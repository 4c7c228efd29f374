from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Pid
from aios.kernel.journal.retention import Held, Kept, expired

LAST = Pid(99)


def held(pid: int, *, last_seq: int = 10, unix_s: float = 100.0, size_bytes: int = 10) -> Held:
    return Held(Pid(pid), last_seq, unix_s, size_bytes)


def test_old_records_of_ended_processes_go() -> None:
    kept = Kept({}, since_unix_s=50.0, max_bytes=1000, last_pid=LAST)
    assert list(expired([held(2, unix_s=49.0), held(3, unix_s=51.0)], kept)) == [(2, 10)]


def test_records_of_a_process_that_ended_lately_stay_however_old_they_are() -> None:
    kept = Kept({}, 50.0, 1000, LAST, ended={Pid(2): 60.0, Pid(3): 40.0})
    assert list(expired([held(2, unix_s=1.0), held(3, unix_s=2.0)], kept)) == [(3, 10)]


def test_what_is_over_the_limit_goes_oldest_first() -> None:
    kept = Kept({}, since_unix_s=0.0, max_bytes=25, last_pid=LAST)
    all_held = [held(2, unix_s=1.0), held(3, unix_s=3.0), held(4, unix_s=2.0)]
    assert list(expired(all_held, kept)) == [(2, 10)]


def test_a_living_process_keeps_what_it_needs_and_no_more() -> None:
    kept = Kept({Pid(2): 1, Pid(3): 8}, since_unix_s=1e9, max_bytes=1, last_pid=LAST)
    assert list(expired([held(2), held(3)], kept)) == [(3, 7)]


@given(
    st.dictionaries(st.integers(2, 9), st.tuples(st.floats(0, 99), st.integers(0, 99))),
    st.dictionaries(st.integers(2, 9).map(Pid), st.integers(1, 20)),
    st.integers(1, 200),
    st.integers(2, 9),
)
def test_no_record_that_a_living_process_needs_ever_goes(
    sizes: dict[int, tuple[float, int]], alive: dict[Pid, int], max_bytes: int, last_pid: int
) -> None:
    all_held = [held(pid, unix_s=at, size_bytes=size) for pid, (at, size) in sizes.items()]
    for pid, up_to in expired(all_held, Kept(alive, 50.0, max_bytes, Pid(last_pid))):
        assert up_to < alive.get(pid, 1 << 30)
        assert pid in alive or pid <= last_pid, "it came after the living were counted"
