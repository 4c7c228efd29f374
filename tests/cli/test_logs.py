"""`aios logs` against a kernel that runs."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Fifo, Start


@pytest.mark.usefixtures("served")
def test_logs_shows_both_streams_and_tail_only_the_end(
    aios: Aios, programs: Path, fifo: Fifo
) -> None:
    fifo.let_go()
    assert aios("run", programs / "waiter", fifo.path).code == 0
    assert sorted(aios("logs", "waiter").out.splitlines()) == ["a complaint", "let go", "ready"]
    assert len(aios("logs", "waiter", "--tail", "1").out.splitlines()) == 1
    assert aios("logs", "waiter", "--tail", "0").out == ""


@pytest.mark.usefixtures("served")
def test_follow_goes_on_until_the_process_ends(
    aios: Aios, start: Start, programs: Path, fifo: Fifo
) -> None:
    aios("run", "--detach", programs / "waiter", fifo.path)
    following = start("logs", "-f", "waiter")
    seen = {following.line(), following.line()}
    fifo.let_go()
    assert seen == {"ready", "a complaint"}
    ran = following.end()
    assert (ran.code, ran.out) == (0, "let go\n")


@pytest.mark.usefixtures("served")
def test_several_processes_are_followed_at_once(aios: Aios, programs: Path, fifo: Fifo) -> None:
    aios("run", "--detach", "-n", "2", "--name", "w", programs / "waiter", fifo.path)
    fifo.let_go(2)
    ran = aios("logs", "-f", "w-1", "w-2")
    assert ran.code == 0
    assert sorted(ran.out.splitlines()) == sorted(
        f"w-{number} | {text}" for number in (1, 2) for text in ("ready", "a complaint", "let go")
    )


@pytest.mark.usefixtures("served")
def test_logs_as_json_name_the_process(aios: Aios, programs: Path) -> None:
    aios("run", programs / "status", "4")
    (row,) = aios("logs", "status", "--json").rows()
    assert (row["event"], row["name"], row["stream"]) == ("line", "status", "kernel")
    assert row["text"] == "exited with status 4"


@pytest.mark.usefixtures("served")
def test_an_unknown_process_does_not_keep_the_others_from_being_read(
    aios: Aios, programs: Path
) -> None:
    aios("run", programs / "status", "4")
    ran = aios("logs", "nobody", "status")
    assert (ran.code, ran.out) == (4, "exited with status 4\n")
