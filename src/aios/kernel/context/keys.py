"""The names of pages. Pure.

A page is named by the hash of its parent's name, its tokens and the model's fingerprint. The last byte of a name counts the
tokens of a tail, and is 0 for a full page.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from aios.kernel.context.pins import KEY_BYTES


def page_keys(
    fingerprint: str, tokens: NDArray[np.int32], page_tokens: int, *, tail: bool = False
) -> list[bytes]:
    """The names of all full pages of a sequence of tokens, in order, and of its tail if asked for. Cost: 1.5 us a page."""
    parent = root_key(fingerprint)
    data = np.ascontiguousarray(tokens, np.int32).tobytes()
    step = 4 * page_tokens
    n_full_bytes = len(data) // step * step
    keys: list[bytes] = []
    for start in range(0, n_full_bytes, step):
        parent = _digest(parent + data[start : start + step]) + b"\0"
        keys.append(parent)
    if tail and n_full_bytes < len(data):
        keys.append(tail_key(parent, data[n_full_bytes:]))
    return keys


def is_tail(key: bytes) -> bool:
    """Whether a name is that of a page which is filled in part: its last byte counts the tokens."""
    return key[-1] != 0


def root_key(fingerprint: str) -> bytes:
    """What stands before the first page of any sequence of a model."""
    return blake2b(fingerprint.encode(), digest_size=KEY_BYTES).digest()


def tail_key(parent: bytes, data: bytes) -> bytes:
    """The name of a page that is filled in part, by the tokens in it as bytes."""
    return _digest(parent + data) + bytes([len(data) // 4])


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=KEY_BYTES - 1).digest()
