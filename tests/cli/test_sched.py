"""`aios sched`."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served


@pytest.mark.usefixtures("served")
def test_the_policy_and_each_engine_are_shown(aios: Aios) -> None:
    aios("chat", "hello")
    first, *table = aios("sched").out.splitlines()
    assert first.startswith("policy ")
    assert table[0].split()[:4] == ["LANE", "TURNS", "TAKEN", "QUEUED"]
    assert table[1].split()[:5] == ["engine:local", "8", "0", "0", "-"]


def test_policy_quantum_and_weights_are_changed(served: Served, aios: Aios) -> None:
    assert aios("sched", "set", "fair", "--quantum", "64").out.startswith(
        "policy fair, quantum 64 tokens"
    )
    aios("sched", "weight", "alice", "2")
    assert "weight 2 for alice" in aios("sched").out
    (row,) = aios("sched", "--json").rows()
    assert (row["policy"], row["quantum_tokens"], row["weights"]) == ("fair", 64, {"alice": 2.0})
    assert served.kernel.scheduler.policy.name == "fair"
    (row,) = aios("sched", "set", "rr", "--json").rows()
    assert row["policy"] == "rr"


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    "words", [("set", "lottery"), ("set", "rr", "--quantum", "0"), ("weight", "alice", "0")]
)
def test_what_makes_no_sense_is_refused(aios: Aios, words: tuple[str, ...]) -> None:
    assert aios("sched", *words).code == 2


def test_a_guest_may_look_but_not_change(
    served: Served, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = aios("guest", "bob", "--json").rows()
    monkeypatch.setenv("AIOS_TOKEN", str(made["token"]))
    assert aios("sched").code == 0
    before = served.kernel.scheduler.policy.name
    assert aios("sched", "set", "rr").code == 5
    assert served.kernel.scheduler.policy.name == before


@pytest.mark.usefixtures("served")
def test_what_was_served_is_recorded_as_a_trace_that_the_simulator_replays(
    aios: Aios, tmp_path: Path
) -> None:
    trace = tmp_path / "crowd.jsonl"
    aios("chat", "a secret")
    assert aios("sched", "record", str(trace)).out == "1 call of 1 agent\n"
    assert "secret" not in trace.read_text()
    (row,) = aios("sched", "record", "--json", str(trace)).rows()
    assert (row["calls"], row["dropped"]) == (1, 0)
    ran = aios("bench", "sched-sim", "--json", "--policy", "bvt", "--trace", str(trace))
    assert {row["row"] for row in ran.rows()} >= {"makespan-bvt"}
