"""Figures of the `paper` bench as SVG: the ablation, and the curves over the number of agents.

Needs matplotlib, the extra `bench`. The same figures give the same bytes: ids are salted alike, text stays text, no date.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aios.bench.rows import rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Mapping[str, float]
"""What was measured, by row."""

ABLATION, GROWTH = "paper-ablation.svg", "paper-growth.svg"
HOW_TO_GET_IT = "no plots: matplotlib is not installed; pip install 'aios-kernel[bench]'"
STYLE = {
    "svg.hashsalt": "aios",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
METADATA = {"Date": None, "Creator": "aios bench paper"}
WITHOUT, WITH, LINE = "#b5651d", "#3b6ea5", "#3b6ea5"
WITHOUT_SCHEDULER = ("memory", "refused")
PANELS = (("makespan", "overall"), ("wait", "average wait"), ("p90", "wait, slowest tenth"))


def draw(values: Values, folder: Path) -> str:
    """Draw what was measured; a figure whose rows are missing is left out.

    Returns: What to tell the user: where the plots are, or how to get them.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - an extra, and half a second
    except ImportError:
        return HOW_TO_GET_IT
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with rc_context(STYLE):
        for name, figure in ((ABLATION, _ablation(values)), (GROWTH, _growth(values))):
            if figure is not None:
                figure.savefig(folder / name, format="svg", metadata=METADATA)
                drawn.append(str(folder / name))
    return f"plots: {', '.join(drawn) or 'none, their rows are missing'}"


def _ablation(values: Values) -> "Figure | None":
    """Bars of each way to be scheduled: in virtual time above, in a real kernel below."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    if not _names(values, "sim-makespan-"):
        return None
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    for above, (where, title) in zip(
        figure.subplots(2, len(PANELS)),
        (("sim", "in virtual time"), ("kernel", "in a real kernel")),
        strict=True,
    ):
        for axes, (panel, what) in zip(above, PANELS, strict=True):
            _bars(axes, values, f"{where}-{panel}-")
            axes.set_title(f"{what}, s\n{title}", fontsize=9)
            axes.tick_params(length=0)
    return figure


def _bars(axes: "Axes", values: Values, prefix: str) -> None:
    names = _names(values, prefix)
    colours = [WITHOUT if name in WITHOUT_SCHEDULER else WITH for name in names]
    lengths = [values[prefix + name] for name in names]
    bars = axes.barh(names, lengths, color=colours)
    axes.bar_label(bars, [f"{rounded(length):g}" for length in lengths], padding=2, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.2)


def _growth(values: Values) -> "Figure | None":
    """Time per agent by the number of agents, as a part of that at the smallest; and the wait, in virtual time."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    if not _sizes(values, "sim-agent-"):
        return None
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for prefix, label, marker in (
        ("agent-", "real kernel, processor time", "o"),
        ("sim-agent-", "virtual time", "s"),
    ):
        sizes = _sizes(values, prefix)
        if sizes:
            first = values[f"{prefix}{sizes[0]}"]
            parts = [values[f"{prefix}{n}"] / first for n in sizes]
            left.plot(sizes, parts, marker=marker, label=label)
    left.axhline(1.1, color="grey", linestyle=":", label="bar")
    left.set(xscale="log", ylim=(0, 1.3), xlabel="agents at once", title="time per agent / at 250")
    left.legend(fontsize=7, loc="lower right")
    sizes = _sizes(values, "sim-queue-")
    right.plot(sizes, [values[f"sim-queue-{n}"] for n in sizes], marker="s", color=LINE)
    right.set(xlabel="agents at once", title="average wait of a call, s, virtual time")
    return figure


def _names(values: Values, prefix: str) -> list[str]:
    return [row.removeprefix(prefix) for row in values if row.startswith(prefix)]


def _sizes(values: Values, prefix: str) -> Sequence[int]:
    return sorted(int(name) for name in _names(values, prefix) if name.isdigit())
