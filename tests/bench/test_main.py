"""The runner of the benches: every row comes, whatever happens, and the exit status tells."""

import json
import signal
from io import StringIO
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from aios.bench import main
from aios.bench.bench import Bench, Measure, Settings
from aios.bench.children import (
    BenchFailed,
    aios_command,
    environment,
    running,
    scratch_folder,
    wait_until,
)
from aios.bench.main import BENCHES, list_rows, run_bench, run_one
from aios.bench.rows import Bar, Report, Row, Spec
from aios.bench.table import JsonLines
from aios.errors import NotFound

SPECS = (Spec("b", "first", "s", Bar(1.0)), Spec("b", "second", "s"))
DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "benchmarks.md"


async def _first_only(_: Settings, report: Report) -> None:
    report.add("first", 0.5)


async def _too_slow(_: Settings, report: Report) -> None:
    report.add("first", 2.0)
    report.add("second", 2.0)


async def _hangs(settings: Settings, report: Report) -> None:
    settings.say("hanging")
    report.add("first", 0.5)
    await anyio.sleep_forever()


async def _breaks(_: Settings, __: Report) -> None:
    raise BenchFailed("it broke")


async def _breaks_in_a_task(_: Settings, __: Report) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_raise)


async def _raise() -> None:
    raise ConnectionRefusedError("nobody there")


def _bench(measure: Measure) -> Bench:
    return Bench("b", "about", 0.1, SPECS, measure)


async def _run(measure: Measure) -> list[Row]:
    display = JsonLines(StringIO())
    with anyio.fail_after(30):
        return await run_one(_bench(measure), Settings(quick=True, say=lambda _: None), display)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("measure", "brought", "why"),
    [
        (_first_only, ["first"], "the bench did not bring it"),
        (_hangs, ["first"], "not within 0.1 s"),
        (_breaks, [], "BenchFailed: it broke"),
        (_breaks_in_a_task, [], "ConnectionRefusedError: nobody there"),
    ],
)
async def test_every_row_comes_whatever_happens(
    measure: Measure, brought: list[str], why: str
) -> None:
    rows = await _run(measure)
    assert sorted(row.row for row in rows) == ["first", "second"]
    assert [row.row for row in rows if row.ok] == brought
    assert {row.note for row in rows if not row.ok} == {why}


@pytest.mark.parametrize(
    ("measure", "status"), [(_first_only, 0), (_too_slow, 1), (_breaks, 1), (_hangs, 0)]
)
def test_the_exit_status_is_1_when_a_row_with_a_bar_is_not_ok(
    measure: Measure, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "BENCHES", {"b": _bench(measure)})
    out = StringIO()
    assert run_bench(["b"], json=True, out=out) == status
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["bench"] for row in rows] == ["machine", "b", "b"]


@pytest.mark.anyio
async def test_sigterm_ends_a_bench_and_all_that_it_started() -> None:
    with anyio.fail_after(30), scratch_folder() as folder:
        env = environment({"TMPDIR": str(folder)})
        command = aios_command("bench", "--json", "chat-overhead")
        async with running(command, env=env, folder=folder) as child:
            await wait_until(
                lambda: bool(list(folder.glob("aios-bench-*/home-*/run/kernel.json"))),
                child,
                what="its daemon ran",
            )
            (run_file,) = folder.glob("aios-bench-*/home-*/run/kernel.json")
            daemon_pid = json.loads(run_file.read_text())["os_pid"]
            child.process.terminate()
            assert await child.process.wait() == 128 + signal.SIGTERM
        assert not Path(f"/proc/{daemon_pid}").exists()
        assert not list(folder.glob("aios-bench-*"))


def test_a_quick_run_of_all_leaves_the_long_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    long = replace(_bench(_first_only), name="long", is_long=True)
    monkeypatch.setattr(main, "BENCHES", {"b": _bench(_first_only), "long": long})

    def ran(*names: str, quick: bool) -> int:
        out = StringIO()
        run_bench(names, quick=quick, json=True, out=out)
        return out.getvalue().count('"row":"first"')

    assert ran(quick=True) == 1
    assert ran(quick=False) == 2
    assert ran("long", quick=True) == 1


def test_progress_goes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "BENCHES", {"b": _bench(_hangs)})
    run_bench([])
    captured = capsys.readouterr()
    assert "b, 0 s: hanging" in captured.err
    assert "hanging" not in captured.out
    assert "not within 0.1 s" in captured.out


def test_the_list_names_every_row_of_every_bench() -> None:
    out = StringIO()
    assert run_bench(["list"], json=True, out=out) == 0
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(row["bench"], row["row"]) for row in rows] == [
        (spec.bench, spec.row) for spec in list_rows()
    ]
    assert {row["bench"] for row in rows} == set(BENCHES)
    out = StringIO()
    assert run_bench(["list"], out=out) == 0
    assert "makespan" in out.getvalue()


def test_no_two_rows_share_a_name() -> None:
    names = [(spec.bench, spec.row) for spec in list_rows()]
    assert len(names) == len(set(names))
    for name, bench in BENCHES.items():
        assert {spec.bench for spec in bench.specs} == {name}


def test_an_unknown_bench_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        run_bench(["speed"])
    assert "syscalls" in caught.value.hint


def test_the_reference_lists_every_row_as_the_code_has_it() -> None:
    lines = DOCUMENT.read_text().splitlines()
    for spec in list_rows():
        line = f"| {spec.bench} | {spec.row} | {spec.unit} | {spec.limit or ''} | {spec.about} |"
        assert line.replace("|  |", "| |") in lines
