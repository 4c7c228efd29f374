"""Commands that follow: when their kernel goes, they wait until it is there again and go on."""

import threading
from collections.abc import Callable

import click

from aios.cli.connecting import connect
from aios.errors import KernelStopping, KernelUnreachable, Unauthenticated
from aios.sdk.blocking import Client

RETRY_S = 0.5


def follow_patiently(follow: Callable[[Client], None], *, is_patient: bool) -> None:
    """Call `follow` with a client; if it is patient, again with a new one whenever the kernel has gone and come back.

    Raises:
        KernelUnreachable: There was no kernel to begin with.
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
        click.secho("(the kernel has gone; waiting until it is back)", fg="yellow", err=True)
        _wait_for_kernel()


def _wait_for_kernel() -> None:
    """Return once a kernel answers."""
    while True:
        threading.Event().wait(RETRY_S)
        try:
            with connect() as client:
                client.getpid()
                return
        except (KernelStopping, KernelUnreachable, Unauthenticated):
            continue
