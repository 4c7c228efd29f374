"""The command that runs seeds, as a shell starts it."""

import os
import subprocess
import sys

import pytest

from aios.testing.__main__ import INTERRUPTED, READER_GONE, main
from aios.testing.campaign import Tally


def test_a_reader_that_has_gone_ends_it_without_a_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "aios.testing", "7"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (READER_GONE, b"")


def test_words_that_are_no_seeds_are_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["seven"])
    assert ended.value.code == 2
    assert "seven: a seed is a number such as 7" in capsys.readouterr().err


def test_ctrl_c_ends_it_without_a_traceback_and_with_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object, seeds: list[int], __: object) -> Tally:
        if seeds[0] > 0:
            raise KeyboardInterrupt
        return Tally(len(seeds), 50.0, {"crash": 3}, (7,))

    monkeypatch.setattr("aios.testing.__main__.run_seeds", run)
    assert main(["0-250"]) == INTERRUPTED
    said = capsys.readouterr()
    assert said.err == "100 of 251 seeds, 1 broken\n"
    assert said.out == "100 seeds, 2.0 seeds/s, 3 faults {'crash': 3}, broken: [7]\n"
    assert main(["7"]) == INTERRUPTED
    assert capsys.readouterr().out == "0 seeds, 0.0 seeds/s, 0 faults {}, broken: []\n"
