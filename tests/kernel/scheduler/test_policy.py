from aios.abi.types import Pid
from aios.kernel.scheduler.policy import Fifo, Ticket


def test_fifo_ranks_by_arrival_alone() -> None:
    early = Ticket(1, Pid(9), "engine", nice=19)
    late = Ticket(2, Pid(1), "engine", nice=-20)
    assert Fifo().rank(early) < Fifo().rank(late)
