"""The check of the documents finds what it is there for, and nothing else."""

from pathlib import Path

import pytest
from tests.scripts.loading import load_script

check = load_script("docs-check")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n## Two words, said\n\n## Two words, said\n")
    return tmp_path


def faults(root: Path, text: str) -> list[str]:
    (root / "docs" / "page.md").write_text(text)
    return [fault.removeprefix("docs/page.md:") for fault in check.all_faults(root)]


@pytest.mark.parametrize(
    "text",
    [
        "[up](../README.md) [there](../README.md#two-words-said) [second](../README.md#two-words-said-1)",
        "[web](https://example.org/nothing) [mail](mailto:a@example.org)",
        "```\n[dead](nowhere.md)\n```",
        "# Here\n[here](#here)",
        "`src` `docs/page.md` and ~/.config/aios",
    ],
)
def test_what_holds_is_not_reported(root: Path, text: str) -> None:
    assert faults(root, text) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n[dead](nowhere.md)", "2: link nowhere.md leads nowhere"),
        ("[a](../README.md#no)", "1: link ../README.md#no: no heading has that anchor"),
        ("![dead](nowhere.png)", "1: link nowhere.png leads nowhere"),
        ("[out](../../elsewhere.md)", "1: link ../../elsewhere.md leads out of the project"),
        ("`src/gone.py`", "1: names `src/gone.py`, which is not there"),
        ("```\ncd /ho" + "me/someone/aios\n```", "2: /ho" + "me/someone is a path of one machine"),
    ],
)
def test_what_does_not_hold_is_reported_with_its_line(
    root: Path, text: str, complaint: str
) -> None:
    found = faults(root, text)
    assert len(found) == 1
    assert found[0].startswith(complaint)


def test_a_long_readme_is_reported(root: Path) -> None:
    (root / "README.md").write_text("line\n" * 201)
    assert list(check.all_faults(root)) == [
        "README.md:201: 201 lines; 200 is the limit, move the rest to docs/"
    ]


def test_a_hint_in_the_code_that_names_no_page_is_reported(root: Path) -> None:
    (root / "src" / "a.py").write_text('hint = "see docs/gone.md"\n')
    assert list(check.all_faults(root)) == [
        "src/a.py:1: sends the user to docs/gone.md, which is not there"
    ]
