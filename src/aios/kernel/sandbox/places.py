"""Where programs lie, so that a sandboxed program sees what it needs to run: its command, and Python."""

import os
import site
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from msgspec import Struct

import aios
from aios.kernel.sandbox.profile import SYSTEM

MAX_LINKS = 40
"""As many as Linux follows."""
BIN = ("bin", "sbin", "libexec", "scripts")


class Places(Struct, frozen=True):
    """Real paths to read, and the symlinks by which they are named."""

    readable: tuple[Path, ...]
    links: dict[Path, Path]


@cache
def python_places() -> Places:
    """Where the interpreter, what is installed with it and AIOS itself lie. Cost: 0.5 ms, once."""
    return real_places(Path(name).absolute() for name in _python_names())


def _python_names() -> list[str]:
    names = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    names += [*site.getsitepackages(), str(Path(aios.__file__).parent.parent)]
    names += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    names.append(str(Path(sys.executable).resolve().parent))
    return [name for name in names if name.strip("/")]


def is_python(path: Path) -> bool:
    """Whether a path leads to where Python, what is installed and `PYTHONPATH` lay when this was first asked, or to the system."""
    real, places = path.resolve(), (*python_places().readable, *map(Path, SYSTEM))
    return any(real.is_relative_to(place) for place in places)


@cache
def interpreter() -> str:
    """The Python of this kernel, by a path on which nobody can put another one: no folder in it is a symlink."""
    found = Path(sys.executable)
    return str(found.parent.resolve() / found.name)


@cache
def python_links() -> Mapping[Path, Path]:
    """Every symlink that is followed to Python, with where it led when this was first asked; by a name without symlinks in it."""
    return {link: link.readlink() for link in followed(Path(interpreter()))}


def followed(path: Path) -> list[Path]:
    """The symlinks by which an absolute path leads where it does, one after the other."""
    found: list[Path] = []
    at, ahead = Path("/"), [*reversed(path.parts[1:])]
    while ahead and len(found) < MAX_LINKS:
        part = ahead.pop()
        step = at.parent if part == ".." else at / part
        if not step.is_symlink():
            at = step
            continue
        found.append(step)
        target = step.readlink()
        at = Path("/") if target.is_absolute() else at
        ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return found


def at_home(word: str) -> Path:
    """A word as a path in which `~` is the user's home; one of nobody's, such as `~1.2`, is what it is."""
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)


def command_places(words: Iterable[str]) -> Places:
    """What an installed command needs: each file or folder that its words name, and the folder around a `bin` that it lies in."""
    named = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
    around = [_around(each) for path in named for each in (path, path.resolve())]
    return real_places([*named, *around])


def _around(path: Path) -> Path:
    """The tree that an installed program belongs to; the program alone where there is none, or where it is the user's home."""
    root = path.parent.parent
    is_tree = path.parent.name in BIN and len(root.parts) > 2
    has_home = at_home("~").resolve().is_relative_to(root.resolve())
    return root if is_tree and not has_home else path


def real_places(paths: Iterable[Path]) -> Places:
    """Paths as they are without symlinks, and the symlinks by which they were named; what the system has anyway is left out."""
    readable: dict[Path, None] = {}
    links: dict[Path, Path] = {}
    for path in paths:
        real = path.resolve()
        if real.exists() and not any(real.is_relative_to(system) for system in SYSTEM):
            readable[real] = None
            links |= _links(path)
    return Places(tuple(readable), links)


def _links(path: Path) -> dict[Path, Path]:
    """The symlinks on the way to a path, each by a name without symlinks in it, and where it leads."""
    found: dict[Path, Path] = {}
    while True:
        link = next((each for each in reversed((path, *path.parents)) if each.is_symlink()), None)
        if link is None:
            return found
        found[link] = link.resolve()
        path = found[link] / path.relative_to(link)
