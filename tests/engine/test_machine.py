import os

from aios.engine.machine import count_cores


def test_there_is_a_core_and_no_more_than_there_are_cpus() -> None:
    assert 1 <= count_cores() <= len(os.sched_getaffinity(0))
