"""Completion of the command line."""

import os
import subprocess

import pytest
from tests.cli.conftest import COMMAND, Aios


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(aios: Aios, shell: str) -> None:
    ran = aios("completion", shell)
    assert ran.code == 0
    assert "_AIOS_COMPLETE" in ran.out
    assert aios("completion", shell, "--json").rows()[0]["shell"] == shell
    assert aios("completion", "tcsh").code == 2


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("line", "offered"),
    [("aios ser", "serve"), ("aios logs --fo", "--follow"), ("aios config sh", "show")],
)
def test_verbs_and_options_are_completed(line: str, offered: str) -> None:
    words = line.split()
    variables = {
        "_AIOS_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(  # noqa: S603 - our own command, no shell
        COMMAND, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert f"plain,{offered}" in done.stdout.splitlines()
