"""Read a manifest: a file that a program may have made, and may exchange while it is looked at. In bounded time and memory."""

from pathlib import Path

from aios.errors import InvalidCall
from aios.plainfile import read_anything

MAX_LINE_POINTS = 256
"""In one line: the reader of TOML takes memory and time by the square of the parts of a key."""
MAX_POINTS = 4_096
"""In all of it: each part of a key is looked up behind all parts of its table's name, too."""


def read_manifest(file: Path, max_bytes: int) -> dict[str, object]:
    """What a manifest says.

    Raises:
        InvalidCall: It is no regular file, or over `max_bytes`.
        OSError: It cannot be read.
        ValueError: It is no TOML, or it has over `MAX_POINTS` points, or a line over `MAX_LINE_POINTS`.
    """
    data = read_anything(file, max_bytes + 1)
    if data is None:
        raise InvalidCall(f"{file} is no regular file", hint="a manifest is a TOML file")
    if len(data) > max_bytes:
        raise InvalidCall(f"{file} is over {max_bytes} bytes", hint="a manifest is a page at most")
    if any(line.count(b".") > MAX_LINE_POINTS for line in data.split(b"\n")):
        raise ValueError(f"a line of it has over {MAX_LINE_POINTS} points")
    if data.count(b".") > MAX_POINTS:
        raise ValueError(f"it has over {MAX_POINTS} points")
    import tomllib  # noqa: PLC0415 - start-up time: the SDK and most commands read no manifest

    return tomllib.loads(data.decode())
