"""What a command waits for is told, when it is an answer of who sits there."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Start, serving

CAUTIOUS = """
@id("careful") @decide("ask")
permit(principal, action == Action::"file.write", resource) when { context.effect == "irreversible" };
"""


def test_a_call_that_waits_for_its_own_owner_says_so(
    home: Path, aios: Aios, start: Start, tmp_path: Path
) -> None:
    (home / "policies").mkdir()
    (home / "policies" / "own.cedar").write_text(CAUTIOUS)
    (tmp_path / "a").write_text("x")
    with serving(home):
        aios("fs", "put", tmp_path / "a", "/shared/a")
        purge = start("fs", "purge", "/shared/a", "--keep", "0")
        told = purge.complains("waiting for your answer")
        (row,) = aios("approvals", "ls", "--json").rows()
        assert f"`aios approvals show {row['id']}`" in told
        assert f"aios approvals allow {row['id']}" in aios("approvals", "show", str(row["id"])).out
        assert aios("approvals", "allow", str(row["id"])).code == 0
        assert purge.end().code == 0


@pytest.mark.usefixtures("served")
def test_so_does_a_tool_that_asks_its_owner(aios: Aios, start: Start) -> None:
    asking = start("tool", "run", "ask_human", "question=Why?")
    asking.complains("waiting for your answer")
    (row,) = aios("approvals", "ls", "--json").rows()
    assert (
        f"aios approvals answer {row['id']} TEXT" in aios("approvals", "show", str(row["id"])).out
    )
    aios("approvals", "answer", str(row["id"]), "Because.")
    assert asking.end().out == "Because.\n"


def test_without_a_kernel_the_hint_does_not_offer_to_run_something(home: Path, aios: Aios) -> None:
    assert home.exists()
    for verb in ("kill", "wait", "logs"):
        refused = aios(verb, "nobody")
        assert refused.code == 3
        assert "aios run" not in refused.err
        assert "AIOS_HOME" in refused.err
