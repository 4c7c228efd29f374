"""Looks up what the words of a command mean: the files of a name, and where to. Each procedure yields calls and is sent their answers."""

from collections.abc import Generator, Sequence
from typing import TypeVar

from aios.abi.call import Answer, Call
from aios.abi.retrieval import MAX_HITS, FileHit, FileRetrieve, Retrieved
from aios.abi.storage import FileInfo, FileList, Files, FileStat
from aios.errors import AccessDenied, InvalidCall, NotFound
from aios.sdk.filenames import (
    BY_LIKE_NAME,
    BY_NAME,
    Choice,
    Name,
    choose,
    files_of_name,
    folder_of_all,
    folder_of_name,
)
from aios.sdk.fileplan import FOUND_BY_NAME, FOUND_EXACTLY, HINT, Source, lands_at, place_of
from aios.sdk.filewords import Place, is_vague
from aios.sdk.requests import build

T = TypeVar("T")
Procedure = Generator[Call[Answer], Answer, T]

N_CANDIDATES, N_SHOWN = MAX_HITS, 10
_NOWHERE = frozenset(
    [
        "again",
        "aside",
        "away",
        "back",
        "down",
        "elsewhere",
        "here",
        "off",
        "out",
        "over",
        "somewhere",
        "there",
        "twice",
        "up",
    ]
)
"""What says where to, but names nothing."""
MAX_FILES = 1_000
"""As many as one call changes."""


def sources_of(name: Name) -> Procedure[Source]:
    """The files that a name means, or the names of a list; or what it could mean.

    `salt and pepper.md` is a list of two or the name of one: if there are files for both, neither is chosen.
    """
    if not name.parts:
        return (yield from _one_source(name))
    whole = Source(name.words) if name.quoted else (yield from _one_source(name))
    parts: list[Source] = []
    for each in name.parts:
        part = yield from _one_source(each)
        if part.why not in FOUND_BY_NAME:
            lacking = part if part.candidates else Source(each.words)
            return whole if whole.why in FOUND_BY_NAME else lacking
        parts.append(part)
    paths = tuple(dict.fromkeys(path for part in parts for path in part.paths))
    if whole.why in FOUND_EXACTLY:
        return Source(name.words, candidates=(*whole.paths, *paths))
    is_like = any(part.why == BY_LIKE_NAME for part in parts)
    return Source(name.words, paths, BY_LIKE_NAME if is_like else BY_NAME)


def file_for_text(place: Place) -> Procedure[str]:
    """The file that a text is written to: one that is there already if it has just that name."""
    path = place_of(place, "")
    if path.startswith("/") and not is_vague(place):
        return path
    hits = yield from hits_for(place.words, N_CANDIDATES)
    choice = files_of_name(place.name, hits)
    if choice.paths:
        return choice.paths[0]
    if choice.candidates and not place.is_quoted:
        raise InvalidCall(
            f"`{place.words}` could be {', '.join(choice.candidates[:N_SHOWN])}",
            hint="say which; put a new name into quotation marks",
        )
    _check_new(place)
    try:
        home = yield build(FileStat, path=".")
        assert isinstance(home, Files)
    except NotFound:  # its folder is empty
        return path
    # That of the owner holds the folders of all, and no file.
    return f"/shared/{path}" if home.files[0].path == "/" else path


def target_of(place: Place, sources: tuple[str, ...]) -> Procedure[str]:
    """Where files come to lie; of several, the folder. A folder of that name that is there is meant before a new one."""
    source = (yield from _found(sources[0])) if place.is_name else None
    path = place_of(place, sources[0], is_folder=bool(source and source.is_folder))
    there = yield from _found(path)
    is_folder = bool(there and there.is_folder)
    if not is_folder and "/" not in place.words and not place.is_name and "." not in place.words:
        found = folder_of_name(place.name, (yield from hits_for(place.words, N_CANDIDATES)))
        path, is_folder = found or path, bool(found)
    if not is_folder:
        _check_new(place)
    if len(sources) > 1:
        if place.is_name and not is_folder:
            raise InvalidCall(
                f"{len(sources)} files cannot be called {place.words!r}",
                hint="name one file, or the folder that they should go to",
            )
        return path
    is_name = not is_folder and (place.is_name or "." in path.rpartition("/")[2])
    return lands_at(path, sources[0], is_name=is_name)


def files_replaced(sources: Sequence[str], targets: Sequence[str]) -> Procedure[tuple[str, ...]]:
    """Those of some targets where a file is that the caller may see; of a folder, the files in it that those of the source have the names of.

    Raises:
        InvalidCall: A folder has more files than one call changes.
    """
    there: list[str] = []
    for n, target in enumerate(targets):
        try:
            found = yield from _found(target)
        except AccessDenied:
            continue
        if found and not found.is_folder:
            there.append(target)
        elif found and sources:
            inside = yield from _files_below(sources[n])
            own = [path for path in inside if path != sources[n]]
            there += yield from files_replaced(
                (), [target + path.removeprefix(sources[n]) for path in own]
            )
    return tuple(there)


def hits_for(query: str, k: int) -> Procedure[tuple[FileHit, ...]]:
    """What a search finds, at most `k` files, best first."""
    answer = yield build(FileRetrieve, query=query, k=k, is_waiting=True)
    assert isinstance(answer, Retrieved)
    return answer.hits


def _one_source(name: Name) -> Procedure[Source]:
    """The files that one name means.

    Raises:
        InvalidCall: They may be more than are looked for.
    """
    words = name.words
    if name.is_pronoun:
        return Source(words)
    if words.startswith("/") or " " not in words or name.is_quoted:
        there = yield from _found(words)
        if there:
            return Source(words, (there.path,), "by path")
    if (folder := folder_of_all(name)) and (files := (yield from _all_in(folder))):
        return Source(words, files, "by path")
    hits = yield from hits_for(words, N_CANDIDATES)
    choice: Choice = choose(name, hits)
    if len(choice.paths) >= N_CANDIDATES:  # there may be more that no search has shown
        raise InvalidCall(
            f"{N_CANDIDATES} files or more are {words!r}",
            hint="name their folder: `all files in FOLDER`",
        )
    return Source(words, choice.paths, choice.why, choice.candidates[:N_SHOWN])


def _all_in(folder: str) -> Procedure[tuple[str, ...]]:
    """All files below a folder, by its path or else by its name; none if there is no such folder.

    Raises:
        InvalidCall: There are more than one call changes.
    """
    there = yield from _found(folder)
    if there and not there.is_folder:
        return ()
    path = folder
    if not there:
        path = folder_of_name(Name(folder), (yield from hits_for(folder, N_CANDIDATES)))
    return (yield from _files_below(path)) if path else ()


def _files_below(path: str) -> Procedure[tuple[str, ...]]:
    """All files below a folder.

    Raises:
        InvalidCall: There are more than one call changes.
    """
    found = yield build(FileList, path=path, is_deep=True, limit=MAX_FILES)
    assert isinstance(found, Files)
    if found.next:
        raise InvalidCall(f"{path} has more than {MAX_FILES} files", hint=HINT)
    return tuple(each.path for each in found.files)


def _check_new(place: Place) -> None:
    """See that words are a name for what is not there yet.

    Raises:
        InvalidCall: They may say something else besides.
    """
    is_nowhere = not place.is_quoted and place.words.lower() in _NOWHERE
    if place.name.is_pronoun or is_nowhere or is_vague(place):
        raise InvalidCall(
            f"nothing is called `{place.words}`",
            hint="put a new name of several words into quotation marks, and say nothing behind it",
        )


def _found(path: str) -> Procedure[FileInfo | None]:
    try:
        found = yield build(FileStat, path=path)
    except (NotFound, InvalidCall):
        return None
    assert isinstance(found, Files)
    return found.files[0]
