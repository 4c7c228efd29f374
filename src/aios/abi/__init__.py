"""What crosses the line between agents and the kernel: data only, no I/O."""

import sys


def _import_msgspec() -> None:
    """Import msgspec without `typing_extensions`, for the start-up time of small programs.

    It takes `Required` and `get_type_hints` from there if it can, and else from `typing`, where they are the same. That module and
    `inspect`, which it needs, are a quarter of all that a small program imports. Nothing is done where another thread could
    look for it meanwhile.
    """
    threads = sys.modules.get("threading")
    if {"msgspec", "typing_extensions"} & sys.modules.keys():
        return
    if threads is not None and threads.active_count() > 1:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # this is how Python says that there is none
    try:
        import msgspec  # noqa: F401, PLC0415 - its place is here
    finally:
        del sys.modules["typing_extensions"]


_import_msgspec()
