"""Commands that follow: when their kernel goes, they wait until it is there again and go on."""

import threading
from collections.abc import Callable
from math import inf
from time import monotonic

import click

from aios.cli.connecting import connect
from aios.cli.output import short_seconds
from aios.errors import KernelStopping, KernelUnreachable, Unauthenticated
from aios.sdk.blocking import Client

RETRY_S = 0.5


def follow_patiently(
    follow: Callable[[Client], None],
    *,
    is_patient: bool,
    longest_s: Callable[[], float] = lambda: inf,
) -> None:
    """Call `follow` with a client; if it is patient, again with a new one whenever the kernel has gone and come back.

    `longest_s` says, each time that the kernel has gone, how long to wait for the next one, in seconds.

    Raises:
        KernelUnreachable: There was no kernel to begin with, or none came back in time.
        KernelStopping: The kernel ended, and none came back in time.
    """
    has_begun = False
    while True:
        try:
            with connect() as client:
                has_begun = True
                follow(client)
                return
        except (KernelStopping, KernelUnreachable):
            if not (is_patient and has_begun):
                raise
            longest = longest_s()
            _tell_gone(longest)
            if not _wait_for_kernel(longest):
                raise


def _tell_gone(longest_s: float) -> None:
    most = "" if longest_s == inf else f", {short_seconds(max(0.0, longest_s))} at most"
    click.secho(f"(the kernel has gone; waiting until it is back{most})", fg="yellow", err=True)


def _wait_for_kernel(longest_s: float) -> bool:
    """Return once a kernel answers. Returns: whether one did in time."""
    give_up_s = monotonic() + longest_s
    while monotonic() < give_up_s:
        threading.Event().wait(RETRY_S)
        try:
            with connect() as client:
                client.getpid()
                return True
        except (KernelStopping, KernelUnreachable, Unauthenticated):
            continue
    return False
