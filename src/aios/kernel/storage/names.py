"""Names of real files as paths show them, for real names may be any bytes and paths may not. Pure.

A path has one canonical form; a file made by another program may have a name that is none: accents in two characters, bytes that are no UTF-8, a
backslash. It is shown under the canonical form, with what cannot be shown as `%XX`; the real name is kept beside it.
"""

import unicodedata

from aios.kernel.storage.paths import FORBIDDEN_CATEGORIES, MAX_PART_BYTES


def shown_name(real: bytes) -> str:
    """The name in a path for a real one; empty if there can be none."""
    if real.isascii() and real.decode().isprintable() and b"\\" not in real:
        return real.decode()
    text = real.decode(errors="surrogateescape")
    spelt = "".join(_shown(char) for char in unicodedata.normalize("NFKC", text))
    shown = unicodedata.normalize(
        "NFKC", spelt
    )  # an accent after what was spelt out joins its last letter
    # What normalising makes of a look-alike may be a separator or a way up.
    if shown in {".", ".."} or "/" in shown or len(shown.encode()) > MAX_PART_BYTES:
        return ""
    return shown


def _shown(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return f"%{ord(char) - 0xDC00:02X}"
    if char == "\\" or unicodedata.category(char) in FORBIDDEN_CATEGORIES:
        return "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogatepass"))
    return char
