"""`aios bench` hands on to the benches."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cli.conftest import Aios

from aios.bench.bench import Shape
from aios.cli import bench as verb


def test_list_shows_the_rows_without_measuring(aios: Aios) -> None:
    ran = aios("bench", "list")
    assert ran.code == 0
    assert "aios-ps" in ran.out
    rows = aios("bench", "list", "--json").rows()
    assert {"bench", "row", "value", "unit", "baseline", "ratio", "bar", "ok"} <= set(rows[0])


def test_an_unknown_bench_is_not_found(aios: Aios) -> None:
    ran = aios("bench", "speed", "--json")
    assert ran.code == 4
    assert ran.error()["code"] == "not_found"


@pytest.mark.parametrize(
    ("flags", "shape"),
    [
        ([], None),
        (["--agents", "32"], Shape(n_agents=32)),
        (
            ["--agents", "64", "--turns", "2", "--max-tokens", "16", "--head-rules", "29"],
            Shape(64, 2, 16, 29),
        ),
    ],
)
def test_the_size_of_the_workload_is_given_by_flags(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], shape: Shape | None
) -> None:
    asked: list[object] = []

    def run_bench(_: object, **settings: object) -> int:
        asked.append(settings["shape"])
        return 0

    monkeypatch.setattr(verb, "run_bench", run_bench)
    ran = CliRunner().invoke(verb.bench, ["workload", *flags], standalone_mode=False)
    assert ran.exception is None
    assert asked == [shape]


def test_a_size_for_another_bench_is_a_mistake(aios: Aios) -> None:
    ran = aios("bench", "syscalls", "--agents", "4")
    assert ran.code == 2
    assert "workload" in ran.err


def test_a_trace_is_replayed_under_one_policy(aios: Aios, tmp_path: Path) -> None:
    trace = tmp_path / "crowd.jsonl"
    trace.write_text(
        '{"arrives_s": 0, "calls": [{"prompt_tokens": 10, "output_tokens": 4}]}\n', encoding="utf-8"
    )
    ran = aios("bench", "sched-sim", "--json", "--policy", "mlfq", "--trace", str(trace))
    assert ran.code == 0
    assert "makespan-mlfq" in {row["row"] for row in ran.rows()}


def test_a_policy_for_another_bench_is_a_mistake(aios: Aios) -> None:
    ran = aios("bench", "syscalls", "--policy", "mlfq")
    assert ran.code == 2
    assert "sched-sim" in ran.err


def test_seeds_for_another_bench_are_a_mistake(aios: Aios) -> None:
    ran = aios("bench", "syscalls", "--seeds", "5")
    assert ran.code == 2
    assert "sim" in ran.err


def test_plots_for_another_bench_are_a_mistake(aios: Aios, tmp_path: Path) -> None:
    ran = aios("bench", "syscalls", "--plots", str(tmp_path))
    assert ran.code == 2
    assert "paper" in ran.err


def test_plots_are_drawn_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []

    def run_bench(_: object, **settings: object) -> int:
        asked.append(settings["variants"])
        return 0

    monkeypatch.setattr(verb, "run_bench", run_bench)
    words = ["paper", "--plots", str(tmp_path)]
    CliRunner().invoke(verb.bench, words, standalone_mode=False)
    assert isinstance(asked[0], dict)
    assert list(asked[0]) == ["paper"]


def test_kills_for_another_bench_are_a_mistake(aios: Aios) -> None:
    ran = aios("bench", "syscalls", "--kills", "5")
    assert ran.code == 2
    assert "`storage` and `memory`" in ran.err
