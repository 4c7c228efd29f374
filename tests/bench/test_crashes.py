"""The program that crashes kernels says what it found; what it finds is in test_file_crashes.py and test_note_crashes.py."""

import msgspec
import pytest

from aios.bench import crashes
from aios.bench.bench import Settings
from aios.bench.crashes import Found, main, measure_crashes, specs_of
from aios.bench.rows import Report


@pytest.mark.anyio
async def test_kills_and_losses_of_power_are_counted_with_their_seeds() -> None:
    report = Report(specs_of("memory", "notes"))
    settings = Settings(quick=True, say=lambda _: None)
    await measure_crashes("notes", report, settings, 1)
    assert [(row.row, row.value, row.ok) for row in report.rows] == [
        ("kill-9", 0, True),
        ("power-loss", 0, True),
    ]
    assert all("1 kills, seeds" in row.note or "1 losses" in row.note for row in report.rows)


def test_what_was_found_is_told_and_ends_in_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crashes, "WAYS", {("files", "kills"): lambda *_: ["lost: a note"]})
    assert main(["files", "kills", "3", "7"]) == 1
    assert msgspec.json.decode(capsys.readouterr().out, type=Found) == Found(
        3, 7, ("lost: a note",)
    )


@pytest.mark.parametrize("words", [[], ["memory", "kills", "3"], ["files", "kills", "many"]])
def test_words_that_make_no_sense_are_told_so(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: python -m aios.bench.crashes" in capsys.readouterr().err
