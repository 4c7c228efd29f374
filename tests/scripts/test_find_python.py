"""Finding an interpreter."""

import os
import subprocess
import sys
from pathlib import Path

from tests.scripts.loading import SCRIPTS


def find(**env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own script
        ["/bin/sh", str(SCRIPTS / "find-python")],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_named_interpreter_wins() -> None:
    found = find(PYTHON=sys.executable)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


def test_one_that_is_too_old_is_refused_with_the_packages_to_install(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    # Asked for its version it tells one; asked whether it suits, it says no.
    old.write_text('#!/bin/sh\ncase "$2" in *platform*) echo 3.9.2;; *) exit 1;; esac\n')
    old.chmod(0o755)
    found = find(PYTHON=str(old))
    assert found.returncode == 1
    assert "3.9.2" in found.stderr
    assert "apt-get install python3 python3-venv" in found.stderr
