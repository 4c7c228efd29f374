"""Which files of a folder can be read, and why the others cannot. Opens nothing that could block."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

SNIFFED_BYTES = 8_192
LEFT_OUT = frozenset({"node_modules", "__pycache__"})


@dataclass
class Survey:
    """What a folder holds: files to read, and (file, reason) for the rest. Names are relative to the folder."""

    files: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def survey(folder: Path, *, limit: int, except_for: Path) -> Survey:
    """Look through a folder and everything below it, in the order of the names.

    Args:
        folder: Where to look. Hidden files and folders are left out, symbolic links are not followed.
        limit: The most files to read.
        except_for: A file to leave out, the report itself.
    """
    found = Survey()

    def unreadable(error: OSError) -> None:
        name = Path(os.fsdecode(error.filename or "?")).name
        found.skipped.append((_shown(name), f"cannot be read: {error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in LEFT_OUT)
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or path.absolute() == except_for.absolute():
                continue
            relative = str(path.relative_to(folder))
            reason = objection_to(path)
            if not reason and len(found.files) >= limit:
                reason = f"over the limit of {limit} files"
            if reason:
                found.skipped.append((_shown(relative), reason))
            else:
                found.files.append(relative)
    return found


def objection_to(path: Path) -> str:
    """Why a file cannot be read as text; empty if it can."""
    try:
        str(path).encode()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return "a symbolic link, not followed"
        if not stat.S_ISREG(mode):
            return "not a regular file"
        with path.open("rb") as stream:
            head = stream.read(SNIFFED_BYTES)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head.strip():
        return "empty"
    return "" if is_text(head) else "binary"


def is_text(head: bytes) -> bool:
    """Whether the beginning of a file is UTF-8 text; a character that the cut went through does not count."""
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def _shown(name: str) -> str:
    """A name that can be written down whatever its bytes are."""
    return name.encode("utf-8", "replace").decode()
