"""Python's cyclic garbage collector, set once for an operating-system process that is a kernel and nothing else.

Nearly everything a kernel drops is freed at once, by reference counts; calls and processes leave no cycles behind, so the
collector finds next to nothing. As Python sets it, it looks after every 700 new objects and now and then through all that live:
with 10,000 agents alive that was a third of the time that each of them took, and stood everything still for more than half a
second at once. So what was there at the start is never looked at again, and new objects are looked at seldom.

A library must not change its host: `open_kernel` and `open_server` leave the collector alone; only programs of our own that
serve a kernel (`aios serve`, `aios run`, `aios chat`) call this. An embedder that runs thousands of agents may do so too.
"""

import gc

YOUNG_OBJECTS = 100_000
"""New objects, less those freed, before they are looked through: about 20 MB if all were in cycles, and 50 ms."""
MIDDLE_ROUNDS = 20
"""Such rounds before those that were left over are looked through together."""
OLD_ROUNDS = 100
"""Of these before everything is; Python also waits until a quarter of it is new."""


def settle_collector() -> None:
    """Call when the kernel has booted: look after cycles less often, and not at all among what lives already."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_ROUNDS, OLD_ROUNDS)
