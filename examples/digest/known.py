"""Digests that earlier runs made: in /shared/digests as files, and in shared memory as notes that others can find.

A digest is known by what it was made of: the model, the bytes that were read, and the size of the file. Its name plays no part, so
a file that was moved is not read again, and one that was changed is.
"""

import hashlib
from pathlib import Path

import aios

MAKING = "1"
"""Counts how readers make digests; what was made otherwise is made again."""


def key_of(path: Path, max_bytes: int, model: str) -> str:
    """What a digest of the file would be known by; empty if it cannot be read (its reader then says why)."""
    try:
        with path.open("rb") as stream:
            head, n_bytes = stream.read(max_bytes), stream.seek(0, 2)
    except OSError:
        return ""
    about = f"{MAKING} {model} {n_bytes} {max_bytes}\n".encode()
    return hashlib.sha256(about + head).hexdigest()[:32]


def model_of(client: aios.blocking.Client) -> str:
    """The model that readers will be answered by."""
    return ",".join(engine.model for engine in client.info().engines)


def find_digest(client: aios.blocking.Client, key: str) -> bytes | None:
    """The digest that is known by a key, as JSON."""
    try:
        return client.files.read(f"/shared/digests/{key}.json") if key else None
    except aios.AiosError:  # not there, or not readable now: it is made again
        return None
