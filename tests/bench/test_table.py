"""How rows are shown."""

import json
from io import StringIO

from aios.bench.rows import Bar, Spec
from aios.bench.table import JsonLines, Tables, print_specs

SPEC = Spec("engine", "decode-8", "tokens/s", Bar(0.92, is_minimum=True, on_ratio=True), "about it")


def test_a_row_is_one_json_object_on_one_line() -> None:
    out = StringIO()
    display = JsonLines(out)
    display.row(SPEC.measured(99.99, baseline=100.0, spread=0.05))
    display.row(SPEC.missing("not [built]"))
    display.end("engine")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first == {
        "bench": "engine",
        "row": "decode-8",
        "value": 99.99,
        "unit": "tokens/s",
        "baseline": 100.0,
        "ratio": 0.9999,
        "bar": "ratio >= 0.92",
        "ok": True,
        "spread": 0.05,
        "note": "",
    }
    assert (second["value"], second["ok"], second["note"]) == (None, False, "not [built]")


def test_a_table_shows_figures_bars_and_notes_once() -> None:
    out = StringIO()
    display = Tables(out)
    display.row(SPEC.measured(12340.0, baseline=0.1234))
    display.row(SPEC.missing("not [built]"))
    assert not out.getvalue()
    display.end("engine: the loop")
    text = out.getvalue()
    for part in (
        "engine: the loop",
        "12,340",
        "0.123",
        "ratio >= 0.92",
        "yes",
        "no",
        "not [built]",
    ):
        assert part in text
    display.end("nothing more")
    assert "12,340" not in out.getvalue().removeprefix(text)


def test_the_list_shows_what_there_is_to_measure() -> None:
    out = StringIO()
    print_specs([SPEC], out)
    for part in ("engine", "decode-8", "tokens/s", "ratio >= 0.92", "about it"):
        assert part in out.getvalue()
