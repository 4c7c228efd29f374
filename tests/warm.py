"""Daemons that fork off an interpreter with the modules of a kernel in it: to import them is most of what a daemon takes to begin.

What a daemon does from its command on is as ever, and it is killed like any other process. Its start from nothing is for
the tests of the command `serve` and of the server's daemon.
"""

import os
import sys
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

MODULES = ["aios.cli.main", "aios.cli.serve", "aios.kernel.kernel", "aios.server.daemon", "uvloop"]


def start_daemon(env: Mapping[str, str], log: Path) -> ForkServerProcess:
    """Start `aios serve` with exactly this environment; what it says goes to `log`."""
    process = _warm().Process(target=_serve, args=(dict(env), log))
    process.start()
    return process


@cache
def _warm() -> ForkServerContext:
    context = ForkServerContext()
    context.set_forkserver_preload(MODULES)
    return context


def _serve(env: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(env)
    with open(os.devnull, "rb") as nothing, log.open("ab") as said:  # noqa: PTH123 - no path
        for there, here in ((nothing, 0), (said, 1), (said, 2)):
            os.dup2(there.fileno(), here)
    from aios.cli.main import main  # noqa: PLC0415 - here alone, and there already

    sys.argv = ["aios", "serve"]
    sys.exit(main())
