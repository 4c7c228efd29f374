"""A suspended generation as this engine keeps it, and as bytes that outlive the process.

The sampler has no state, and grammar, text and tool parser are brought back by giving them the output again. So beside the
tokens there is little to write down; the cells themselves are in pages that the generation pins.

    magic 8 | blake2b-128 of the rest | msgpack
"""

from hashlib import blake2b

import msgspec
import numpy as np
from msgspec import Struct

from aios.engine.base import Delta, Suspended
from aios.engine.llama.keeping import NOTHING, Kept
from aios.engine.llama.template import ToolMode
from aios.errors import InvalidCall, SnapshotIncompatible
from aios.readers import from_msgpack

MAGIC = b"AIOSGEN1"
"""Its last character is the version."""
CHECK_BYTES = 16


class Saved(Struct, frozen=True):
    """What the engine puts into `Suspended.state`.

    Args:
        tool_mode: How the model was told of its tools.
        n_reached: Tokens that were in the cells of some slot already.
        n_prompt_computed: Tokens of the prompt that were computed for this generation.
        kept: Its cells.
        unread: What was generated and not read, if anything.
    """

    tool_mode: ToolMode = ToolMode.NONE
    n_reached: int = 0
    n_prompt_computed: int = 0
    kept: Kept = NOTHING
    unread: Delta | None = None


class _Written(msgspec.Struct, frozen=True, array_like=True):
    fingerprint: str
    n_generated: int
    tokens: bytes
    emitted: str
    saved: Saved


def dump(suspended: Suspended) -> bytes:
    """A suspended generation of this engine as bytes; its pages are not among them."""
    assert isinstance(suspended.state, Saved)
    written = _Written(
        suspended.fingerprint,
        suspended.n_generated,
        np.array(suspended.tokens, "<i4").tobytes(),
        suspended.emitted,
        suspended.state,
    )
    body = msgspec.msgpack.encode(written)
    return MAGIC + _check(body) + body


def load(data: bytes, fingerprint: str) -> Suspended:
    """What `dump` was given.

    Raises:
        SnapshotIncompatible: The engine that wrote it has another fingerprint; or it is damaged, or of another version.
    """
    body = data[len(MAGIC) + CHECK_BYTES :]
    if data[: len(MAGIC)] != MAGIC:
        raise SnapshotIncompatible("these bytes are no generation that this version suspended")
    if data[len(MAGIC) : len(MAGIC) + CHECK_BYTES] != _check(body):
        raise SnapshotIncompatible("the bytes of the suspended generation are damaged")
    written = from_msgpack(body, _Written)
    check_fingerprint(written.fingerprint, fingerprint)
    tokens = np.frombuffer(written.tokens, "<i4").tolist()
    return Suspended(
        written.fingerprint, written.n_generated, tuple(tokens), written.emitted, written.saved
    )


def saved_state(suspended: Suspended) -> Saved:
    """What this engine put into a suspended generation.

    Raises:
        InvalidCall: It was not this engine.
    """
    if not isinstance(suspended.state, Saved):
        raise InvalidCall("the suspended state is not one of this engine's")
    return suspended.state


def check_fingerprint(theirs: str, ours: str) -> None:
    """Refuse what another model, quantisation or KV type has computed.

    Raises:
        SnapshotIncompatible: The two differ.
    """
    if theirs != ours:
        raise SnapshotIncompatible(
            f"suspended by `{theirs}`; this engine is `{ours}`",
            hint="resume it on the model that it began with",
        )


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=CHECK_BYTES).digest()
