"""Tables of the docs, made as their pages say: by a command of its own, where no coverage slows the simulations down."""

import os
import subprocess
import sys


def printed_by(module: str) -> str:
    """What `python -m MODULE` prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", module],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert ran.stdout.strip()
    return ran.stdout
