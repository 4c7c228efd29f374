"""The model of memory loses no token, and foresight saves reading."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.trace import TracedAgent, TracedCall
from aios.kernel.scheduler.engine_model import EngineModel
from aios.kernel.scheduler.policy import Fifo
from aios.kernel.scheduler.residence import Found, MemoryModel, Residence
from aios.kernel.scheduler.simulation import simulate

steps = st.tuples(
    st.sampled_from(["leave", "come_back", "suspend", "fetch", "forget"]),
    st.integers(0, 5),
    st.integers(0, 500),
)


@settings(deadline=None)
@given(
    st.lists(steps, max_size=60),
    st.integers(0, 1000),
    st.none() | st.integers(0, 1000),
    st.booleans(),
)
def test_memory_never_holds_more_than_it_can(
    taken: list[tuple[str, int, int]],
    ram_tokens: int,
    disk_tokens: int | None,
    foresees: bool,
) -> None:
    residence = Residence(
        MemoryModel(ram_tokens=ram_tokens, disk_tokens=disk_tokens, foresees=foresees)
    )
    for number, (what, agent, n_tokens) in enumerate(taken):
        match what:
            case "leave":
                waits_s, _ = residence.leave(agent, "", n_tokens=n_tokens, now_s=float(number))
                assert waits_s >= 0
            case "come_back":
                residence.come_back(agent, float(number))
                residence.seat(agent)
            case "suspend":
                assert residence.suspend(agent, n_tokens) >= 0
            case "fetch":
                residence.fetch(agent)
                assert residence.fetch(agent) == Found(), "it is there now"
            case _:
                residence.forget(agent)
        residence.check_invariants()


def test_what_does_not_fit_is_read_again_and_what_fits_is_not() -> None:
    residence = Residence(MemoryModel(ram_tokens=1000, read_s=1.0, write_s=0.5, foresees=False))
    assert residence.leave(1, "", n_tokens=800, now_s=0.0) == (0.0, None)
    assert residence.leave(2, "", n_tokens=700, now_s=1.0) == (250.0, None)
    assert residence.seat(2) == Found()
    assert residence.seat(1) == Found(500.0)


def test_what_the_disk_has_no_room_for_is_computed_again() -> None:
    model = MemoryModel(ram_tokens=1000, disk_tokens=300, read_s=1.0, foresees=False)
    residence = Residence(model)
    for agent in (1, 2, 3):
        residence.suspend(agent, 600)
    assert residence.seat(3) == Found()
    assert residence.seat(1) == Found(100.0, 500)
    assert residence.seat(2) == Found(200.0)


def crowd(gaps_s: tuple[float, float], n_calls: int = 12) -> list[TracedAgent]:
    """Two kinds of agents, ten of each, whose tools take as long as is said."""
    agents = []
    for number in range(20):
        kind, gap_s = (("quick", gaps_s[0]), ("slow", gaps_s[1]))[number % 2]
        calls = [TracedCall(600, 4, 0, gap_s)]
        calls += [TracedCall(640, 4, 600, gap_s)] * (n_calls - 1)
        agents.append(TracedAgent(0.2 * number, tuple(calls), kind=kind))
    return agents


def test_who_knows_when_agents_are_back_lets_them_wait_less_for_the_disk() -> None:
    agents = crowd((3.0, 40.0))

    def read_s(*, foresees: bool) -> float:
        memory = MemoryModel(ram_tokens=6000, read_s=1e-3, foresees=foresees)
        return simulate(agents, Fifo(), EngineModel(memory=memory), check=True).read_s

    assert read_s(foresees=True) < 0.5 * read_s(foresees=False)
