"""The way from a command to the kernel that runs, if one does.

`AIOS_URL` and `AIOS_TOKEN` name a kernel; without them it is the one that serves `AIOS_HOME`.
"""

import os

from aios.home import Home
from aios.sdk.address import Address, find_address
from aios.sdk.discovery import find_kernel


def names_kernel() -> bool:
    """Whether the environment names a kernel, which is then taken at its word."""
    return bool(os.environ.get("AIOS_URL"))


def find_running(home: Home) -> Address | None:
    """The address of the running kernel, or None when none runs.

    Raises:
        KernelUnreachable: It runs, but its token cannot be read.
    """
    if not names_kernel() and find_kernel(home.root) is None:
        return None
    return find_address()
