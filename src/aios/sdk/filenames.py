"""What the names in a command about files in plain words mean, by the files that a search shows. Pure.

A name in quotation marks is taken whole; of others, the words that say nothing may be a part of it or not. Exactly that name comes before one like it.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from aios.abi.retrieval import FileHit

CLEAR_LEAD = 1.5
"""A hit by meaning is taken without asking when its score is so many times that of the next."""
CLEAR_MEANING = 0.25
"""With the embedder that comes along, files that have nothing to do with a name reach 0.22; `the recipe` and a cake have 0.28."""
BY_NAME, BY_LIKE_NAME = "by name", "by a name like it"

_SAYS_NOTHING = (
    "a about all an and are at away both called document documents each every everything file files folder folders for from in into is "
    "me mention mentions my named of on our out that the this to up with"
)
FILLING = frozenset(_SAYS_NOTHING.split())
PRONOUNS = frozenset(("it", "them", "this", "that", "these", "those"))
FILE_NAME = re.compile(r"/|\.[^\W_]{1,8}$")
_ALL = re.compile(r"(?i)(?<![\w-])(all|every|everything|each|both)(?![\w-])")
_WITHIN = frozenset(("below", "from", "in", "inside", "of", "out", "under"))
_MANY = frozenset(("all", "documents", "each", "every", "everything", "files"))
_ALL_IN = re.compile(
    r"(?i)(?:all|every|everything|each)(?:\s+(?:the\s+)?(?:files?|documents?))?"
    r"\s+(?:in|inside|under|below|from|of)\s+(?:the\s+)?(?:folder\s+)?([^\s,]+)(?:\s+folder)?"
)
_IS_FOLDER = re.compile(r"(?i)\bfolders?\b")
_WORD = re.compile(r"[^\W_]+")
_GAP = re.compile(r"[\s_-]+")
_MEANING = re.compile(r"meaning (\d\.\d+)")


class Name(Struct, frozen=True):
    """Words that name files. `quoted` are those in quotation marks, each a whole name; `parts` are the names of a list such as `a.md and b.md`."""

    words: str
    quoted: tuple[str, ...] = ()
    parts: tuple["Name", ...] = ()

    @property
    def is_quoted(self) -> bool:
        """All of it stands in quotation marks."""
        return self.quoted == (self.words,)

    @property
    def is_pronoun(self) -> bool:
        """It only points at what was said before."""
        return not self.quoted and self.words.lower() in PRONOUNS


class Choice(Struct, frozen=True):
    """What a name means: `paths` and how that was found, or else `candidates` to choose from."""

    paths: tuple[str, ...] = ()
    why: str = ""
    candidates: tuple[str, ...] = ()


def choose(name: Name, hits: Sequence[FileHit]) -> Choice:
    """The files or the folder that a name means, by the hits of a search for it, best first.

    By name before by meaning, exactly that name before one like it; more than one only if the words ask for all. What is not clear is not chosen,
    and neither is `plan-b.txt` for the file name `plan.txt`, nor `plan.txt` for `my plan.txt` in quotation marks.
    """
    telling, paths = _telling(name.words), list(dict.fromkeys(hit.path for hit in hits))
    named = [path for path in paths if _is_named(telling, path) and _has_quoted(name, path)]
    if name.is_quoted:
        exact = exactly(name, paths)
        return _one(exact, BY_NAME) if exact else Choice(candidates=tuple(named))
    before = _before_within(name)
    if before is not None and not _best(name.words, paths, is_strict=False):
        return _what_is_in(name, before, hits) or Choice(candidates=tuple(named))
    is_whole = any(path.lower().endswith(f"/{name.words.lower()}") for path in paths)
    if _ALL.search(name.words) and named and not is_whole:
        named = [path for path in named if _is_of_name(without_filling(name.words), path)]
        is_clear = len(named) == 2 or not re.search(r"(?i)\bboth\b", name.words)
        return Choice(tuple(named), BY_NAME) if is_clear else Choice(candidates=tuple(named))
    if exact := exactly(name, paths):
        return _one(exact, BY_NAME)
    if is_file_name(name.words) or _names_more(name.words):
        return Choice(candidates=tuple(named))  # a name that is nowhere is not like another file
    for like in (_like(name, paths), named):
        if like:
            return _one(like, BY_LIKE_NAME)
    if not (hits and telling) or FILE_NAME.search(without_filling(name.words)) or name.quoted:
        return Choice()
    is_ahead = len(hits) == 1 or hits[0].score >= CLEAR_LEAD * hits[1].score
    if is_ahead and _is_like(hits[0]):
        return Choice((hits[0].path,), "; ".join(("by content", *hits[0].why)))
    return Choice(candidates=tuple(paths))


def _before_within(name: Name) -> set[str] | None:
    """The words in front of `in`, `from` or the like, if they say nothing: then what is in it is meant, not the file or folder of that name."""
    before: set[str] = set()
    for word in name.words.lower().removeprefix("of ").split():  # as in `get rid of a.md`
        if word in _WITHIN:
            return before
        if word not in FILLING | PRONOUNS:
            break
        before.add(word)
    return None


def _what_is_in(name: Name, before: set[str], hits: Sequence[FileHit]) -> Choice | None:
    """The folder for `everything in it`, as far as there is one: a file has nothing in it that could be taken by itself, but `all of it` is the file."""
    paths = [hit.path for hit in hits]
    if before & _MANY and (folder := folder_of_name(name, hits)):
        return Choice((folder,), BY_NAME if folder in exactly(name, paths) else BY_LIKE_NAME)
    if name.words.lower().startswith("all of ") and (exact := exactly(name, paths)):
        return _one(exact, BY_NAME)
    return None


def exactly(name: Name, paths: Sequence[str]) -> list[str]:
    """The files that are called so, with or without their extension, and the folders; only folders if the words say `folder`.

    `my plan.txt` is the file of that name if there is one, and else `plan.txt`: as much of what is said as can be is the name. Not so in quotation marks.
    """
    said = [path for path in paths if _has_quoted(name, path)]
    folders = list(dict.fromkeys(above for path in said for above in _above(path)))
    is_folder = not name.is_quoted and bool(_IS_FOLDER.search(name.words))
    for piece in _pieces(name):
        found = _best(piece, folders, is_strict=name.is_quoted)
        if not (is_folder and found):
            found = _best(piece, said, is_strict=name.is_quoted) + found
        if found:
            return found
    return []


def files_of_name(name: Name, hits: Sequence[FileHit]) -> Choice:
    """The one file that has exactly that name; or the files that it may mean."""
    paths = list(dict.fromkeys(hit.path for hit in hits))
    whole = [path for path in exactly(name, paths) if path in paths]
    if len(whole) == 1:
        return Choice((whole[0],), BY_NAME)
    telling = _telling(name.words)
    part = [path for path in paths if _is_named(telling, path)]
    return Choice(candidates=tuple(whole or ([] if is_file_name(name.words) else part)))


def folder_of_name(name: Name, hits: Sequence[FileHit]) -> str:
    """The one folder that has that name among those that hits are in; empty if there is none, or more."""
    paths = [hit.path for hit in hits]
    found = [path for path in exactly(name, paths) if path not in paths]
    if not found and not name.is_quoted:
        found = [path for path in _like(name, paths) if path not in paths]
    return found[0] if len(found) == 1 else ""


def folder_of_all(name: Name) -> str:
    """The folder in a name such as `all files in /notes`; empty if a name says something else."""
    found = None if name.is_quoted else _ALL_IN.fullmatch(name.words.strip())
    return found[1] if found else ""


def is_file_name(words: str) -> bool:
    """Whether words are the name or path of a file, rather than a description: `a.md`, `x/a`, `my plan.txt`."""
    bare = without_filling(words)
    return bool(FILE_NAME.search(bare)) and (" " not in bare or "/" not in bare)


def named_in(words: str, hits: Sequence[FileHit]) -> list[str]:
    """The files whose whole names words have in them."""
    telling = _telling(words)
    stems = [(hit.path, hit.path.rpartition("/")[2].partition(".")[0]) for hit in hits]
    return [path for path, stem in stems if _telling(stem) and _telling(stem) <= telling]


def root_of(path: str) -> str:
    """The agent's, group's or mount's folder of a path."""
    parts = path.split("/")
    return "/".join(parts[: 3 if parts[1] in ("agents", "groups") else 2])


def without_filling(words: str) -> str:
    """A name without the words that say nothing; as it is if nothing else is left."""
    return " ".join(word for word in words.split() if word.lower() not in FILLING) or words


# --- how a name and a path are compared -----------------------------------------------------------------------------


def _one(paths: Sequence[str], why: str) -> Choice:
    return Choice((paths[0],), why) if len(paths) == 1 else Choice(candidates=tuple(paths))


def _pieces(name: Name) -> Iterator[str]:
    """What of a name may be the name itself, longest first: all but words that say nothing at either end."""
    words = name.words.split()
    if name.is_quoted:
        yield name.words
        return
    told = [n for n, word in enumerate(words) if word.lower() not in FILLING] or [0]
    runs = [(n, end) for n in range(told[0] + 1) for end in range(told[-1] + 1, len(words) + 1)]
    for begin, end in sorted(runs, key=lambda run: run[0] - run[1]):
        yield " ".join(words[begin:end])


def _best(piece: str, paths: Sequence[str], *, is_strict: bool) -> list[str]:
    """The paths that are called so, by the nearest way of spelling that there is."""
    spelled = [(path, _spelled(piece, path, is_strict=is_strict)) for path in paths]
    nearest = min((how for _, how in spelled if how is not None), default=None)
    return [path for path, how in spelled if how is not None and how == nearest]


def _spelled(piece: str, path: str, *, is_strict: bool) -> int | None:
    """How near a name is to the end of a path: 0 the same, 1 in other case, 2 `-` for a blank, 3 and 4 these without its extension; None: it is another."""
    said = piece.strip("/")
    is_whole = piece.startswith("/") and "/" in said
    parts = path.strip("/").split("/")
    end = "/".join(parts if is_whole else parts[-said.count("/") - 1 :])
    folder, slash, own = end.rpartition("/")
    stems = [own.rpartition(".")[0], own.partition(".")[0]]
    low, stemmed = said.lower(), [f"{folder}{slash}{stem}".lower() for stem in stems if stem]
    ways = (
        end == said,
        end.lower() == low,
        not is_strict and _GAP.sub(" ", end.lower()) == _GAP.sub(" ", low),
        low in stemmed,
        not is_strict and _GAP.sub(" ", low) in [_GAP.sub(" ", stem) for stem in stemmed],
    )
    return next((how for how, fits in enumerate(ways) if fits), None) if said else None


def _above(path: str) -> list[str]:
    """The folders that a path is in, the uppermost first."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(2, len(parts))]


def _has_quoted(name: Name, path: str) -> bool:
    """Whether each piece in quotation marks is the whole name of the file or of a folder that it is in."""
    own = (path, *_above(path))
    return name.is_quoted or all(_best(piece, own, is_strict=True) for piece in name.quoted)


def _is_named(telling: set[str], path: str) -> bool:
    """Whether a path has all these words, and one of them below the folder that all of its owner's is in: `notes` are not all files in /notes."""
    below = path.removeprefix(root_of(path))
    return bool(telling & _telling(below)) and telling <= _telling(path)


def _is_of_name(bare: str, path: str) -> bool:
    """Whether a path is one of all those of a file name, such as `plan.txt` or `.txt`; all are if it is no such name."""
    if not is_file_name(bare):
        return True
    ends = bare.startswith(".") and path.lower().endswith(bare.lower())
    return ends or _spelled(bare, path, is_strict=False) is not None


def _names_more(words: str) -> bool:
    """Whether words have the names of several files in them, with nothing between."""
    return sum(bool(FILE_NAME.search(word)) for word in words.split()) > 1


def _like(name: Name, paths: Sequence[str]) -> list[str]:
    """The files and folders whose names have just the same telling words."""
    telling = _telling(name.words)
    said = [path for path in paths if _has_quoted(name, path)]
    folders = list(dict.fromkeys(above for path in said for above in _above(path)))
    found = [path for path in folders if telling and _telling(path.rpartition("/")[2]) == telling]
    if found and _IS_FOLDER.search(name.words):
        return found
    last = [(path, path.rpartition("/")[2]) for path in said]
    files = [
        path
        for path, own in last
        if telling and telling in (_telling(own.partition(".")[0]), _telling(own))
    ]
    return files + found


def _is_like(hit: FileHit) -> bool:
    """Whether a file has words of a name, or a meaning that is not just the least unlike of all."""
    found = [_MEANING.fullmatch(why) for why in hit.why]
    return any(each is None or float(each[1]) >= CLEAR_MEANING for each in found)


def _telling(text: str) -> set[str]:
    """The words of a name or path, without those that say nothing, and without an `s` at the end."""
    said = (piece for piece in text.split() if piece.lower() not in FILLING)
    words = (word.lower() for piece in said for word in _WORD.findall(piece))
    return {word.removesuffix("s") for word in words}
