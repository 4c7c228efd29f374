"""What a child gets: what it or its manifest asks for, within what its parent has. Pure."""

from aios.abi.calls import Spawn
from aios.kernel.loader import Manifest
from aios.kernel.process import INIT_PID, Process


def inherit(
    child: Process, parent: Process, call: Spawn, manifest: Manifest, *, block_bytes: int
) -> None:
    """Give a child its rank, its block of memory and the hosts that it may fetch from.

    None but the owner starts what is less nice than itself, or has a larger block. `block_bytes` has who asks for none.
    """
    child.nice = call.nice or manifest.nice
    child.max_block_bytes = call.block_bytes or manifest.block_bytes
    if parent.pid != INIT_PID:
        child.nice = max(child.nice, parent.nice)
        most_bytes = parent.max_block_bytes or block_bytes
        if (child.max_block_bytes or block_bytes) > most_bytes:
            child.max_block_bytes = most_bytes
    if manifest.fetch_hosts is not None:
        child.fetch_lists = (*child.fetch_lists, manifest.fetch_hosts)
