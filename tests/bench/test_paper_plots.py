"""The plots of the `paper` bench: the same figures give the same bytes, and without matplotlib there is a hint."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aios.bench.paper_plots import ABLATION, GROWTH, HOW_TO_GET_IT, draw

VALUES = {
    **{
        f"{where}-{figure}-{name}": float(number)
        for where in ("sim", "kernel")
        for figure in ("makespan", "wait", "p90")
        for number, name in enumerate(("memory", "fifo", "bvt"), 1)
    },
    **{
        f"{row}-{n}": 100 + n / 100
        for row in ("agent", "sim-agent", "sim-queue")
        for n in (250, 500)
    },
}


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for folder in ("a", "b"):
        assert draw(VALUES, tmp_path / folder).startswith("plots: ")
    for name in (ABLATION, GROWTH):
        first, again = ((tmp_path / folder / name).read_bytes() for folder in ("a", "b"))
        assert first == again
        text = "".join(ElementTree.fromstring(first).itertext())  # noqa: S314 - our own
        assert "dc:date" not in first.decode()
        assert ("memory" in text) is (name == ABLATION)


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw({}, tmp_path) == "plots: none, their rows are missing"
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw(VALUES, tmp_path) == HOW_TO_GET_IT
