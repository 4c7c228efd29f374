"""`aios grant` and `aios revoke`."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Start, Terminals


@pytest.fixture
def prog(tmp_path: Path) -> Path:
    folder = tmp_path / "prog"
    folder.mkdir()
    (folder / "main.py").write_text("print(1)\n")
    (folder / "agent.toml").write_text(
        'name = "prog"\nrights = ["file.write Path::/shared/reports"]\n'
    )
    return folder


def test_what_a_program_asks_for_is_granted_listed_and_taken_back(aios: Aios, prog: Path) -> None:
    empty = aios("grant")
    assert (empty.out, empty.err) == ("", "nothing is granted to any program\n")
    assert aios("grant", "--yes", str(prog)).code == 0
    (row,) = aios("grant", "--json").rows()
    assert row == {
        "program": str(prog),
        "rights": ["file.write Path::/shared/reports"],
        "is_current": True,
    }
    (prog / "main.py").write_text("print(2)\n")
    assert f"{prog} (not in force)" in aios("grant").out
    assert aios("revoke", str(prog)).code == 0
    assert aios("revoke", "--json", str(prog)).code == 4


def test_a_wish_hides_nothing(aios: Aios, prog: Path) -> None:
    wish = r"file.write Path::/x\u001b[1A\u001b[2K"
    (prog / "agent.toml").write_text(f'name = "prog"\nrights = ["{wish}"]\n')
    assert wish in aios("grant", str(prog)).err
    assert wish in aios("grant", "--yes", str(prog)).out


def test_what_changes_while_it_is_asked_about_is_not_granted(
    prog: Path, terminal: Terminals, aios: Aios
) -> None:
    screen = terminal("grant", prog)
    screen.read_until("Grant it?")
    (prog / "main.py").write_text("print(2)\n")
    screen.type("y\n")
    screen.read_until("has changed since")
    assert aios("grant").out == ""


def test_nothing_is_granted_without_a_yes_or_a_wish(aios: Aios, prog: Path) -> None:
    unasked = aios("grant", str(prog))
    assert (unasked.code, "`--yes`" in unasked.err) == (1, True), "nobody is there to be asked"
    assert aios("grant").out == ""
    manifest = prog / "agent.toml"
    manifest.write_text('name = "prog"\n')
    assert aios("grant", "--yes", str(prog)).code == 2
    manifest.write_text('name = "prog"\nrights = ["everything"]\n')
    wrong = aios("grant", str(prog))
    assert (wrong.code, "Grant it?" in wrong.err) == (2, False)
    assert aios("grant", "--yes", str(prog / "none")).code == 4


def test_what_comes_through_a_pipe_is_no_yes(start: Start, prog: Path) -> None:
    ran = start("grant", prog, stdin="y\n").end()
    assert (ran.code, "`--yes`" in ran.err) == (1, True)
