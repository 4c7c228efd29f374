"""How a command about files in plain words is read, before a model is asked: its clauses, and the pieces of each that may be names. Pure.

English words are known. A clause without a known verb is left to a model, with every run of its words.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from aios.sdk.filenames import FILE_NAME, FILLING, Name, without_filling

MAX_SPAN_WORDS = 8
MAX_SPANS = 300


class Do(StrEnum):
    """What a step does."""

    FIND = "find"
    MOVE = "move"
    COPY = "copy"
    DELETE = "delete"
    WRITE = "write"
    APPEND = "append"
    PURGE = "purge"


_VERBS: Mapping[str, tuple[Do, ...]] = MappingProxyType(
    {
        word: kinds
        for words, kinds in (
            ("find where search look show list which what who locate", (Do.FIND,)),
            ("move mv rename relocate transfer shift bring", (Do.MOVE,)),
            ("put", (Do.MOVE, Do.WRITE)),
            ("copy cp duplicate clone", (Do.COPY,)),
            ("delete remove rm erase discard trash drop throw rid", (Do.DELETE,)),
            ("write create", (Do.WRITE,)),
            ("save store", (Do.COPY, Do.WRITE)),
            ("append add", (Do.APPEND,)),
            ("purge", (Do.PURGE,)),
        )
        for word in words.split()
    }
)
_FOR_GOOD = re.compile(r"(?i)\b(permanently|for good|for ever|forever)\b")
_HOLDS_BACK = re.compile(
    r"(?i)\w+n['\u2019]t|dont|cant|wont|not|cannot|never|neither|nor|without|unless|except|excluding|but|apart|if|whether|should|shall|how|why|"
    r"avoid|refrain|instead|rather"
)
"""Words that say what is not to be done, or only perhaps."""
_OTHER_THAN = re.compile(r"(?i)\bother than\b")
_ASKS_YOU = re.compile(r"(?i)\b(?:can|could|would|will) you\b")
_POLITE = re.compile(
    r"(?i)(?:(?:please|kindly|just|now|then|and|also|next|first|finally|so|ok|okay|hey|hi|hello|aios|get|permanently|quickly|immediately|thanks|go ahead"
    r"|let us|let['\u2019]?s|(?:can|could|would|will|must) you|you (?:can|must)|(?:i|we) (?:want|need|would like)(?: you)? to"
    r"|i['\u2019]d like (?:you )?to|[\d.,:;!*-]+)(?:\s+|(?=[.,:!])|$))*"
)
"""What may stand before a verb and leaves its meaning as it is; all else might turn it round, as `it is forbidden to` does."""
_POLITE_END = frozenset(("please", "thanks", "now", "immediately", "and", ",", ";"))
_TO_PLACE, _IN_PLACE = frozenset(("to", "into", "onto")), frozenset(("in", "inside", "under", "at"))
_AS_NAME = frozenset(("as", "called", "named"))
_WITH_TEXT = frozenset(("with", "containing", "saying"))
_LISTS = frozenset((",", ";", "and"))
_BETWEEN = frozenset((",", ";", "and", "then", "also", "please"))
_OPENING, _CLOSING = "\"'`\u201c\u201e\u00ab\u2018", "\"'`\u201d\u201c\u00bb\u2019"
_TOKEN = re.compile(
    r"\"[^\"]+\"|`[^`]+`|\u201c[^\u201d]+\u201d|\u201e[^\u201c\u201d]+[\u201c\u201d]|\u00ab[^\u00bb]+\u00bb"
    r"|(?<!\w)'[^']+'(?!\w)|(?<!\w)\u2018[^\u2019]+\u2019(?!\w)|[^\s,;]+|[,;]"
)
_LABEL = re.compile(r"(?i)^(?:the |a )?(?:line|text|words?|sentence)\s+")
_NEW_NAME = re.compile(r"[\w -]+(?:\.\w+)?")
_AND = re.compile(r"(?i)\b(?:and|then|also)\b")
_STRAY = re.compile('["`\u201c\u201d\u201e\u00ab\u00bb]')
_PATTERN = re.compile(r"[\w./-]\*|\*[\w./-]")


class Place(Struct, frozen=True):
    """Words that say where to; or, with `is_name`, what it is to be called, beside where it is."""

    words: str
    is_name: bool = False
    is_quoted: bool = False

    @property
    def name(self) -> Name:
        """What is there already, if these words name that."""
        return Name(self.words, (self.words,) if self.is_quoted else ())


class Clause(Struct, frozen=True):
    """A part of a command that asks for one thing: of which kinds, and the pieces that may name files, places and texts.

    Without a known verb (`is_open`) a model says what it means; what takes something away must be said. `before` is what stands before the verb
    if that may change what it means. `is_new` says that a file is to be made, not written over.
    """

    words: str
    kinds: tuple[Do, ...]
    names: tuple[Name, ...] = ()
    places: tuple[Place, ...] = ()
    texts: tuple[str, ...] = ()
    is_open: bool = False
    before: str = ""
    is_new: bool = False


def clauses(command: str) -> list[Clause]:
    """The clauses of a command; `it` in one is what the one before names, or the file that it writes a text to."""
    found: list[Clause] = []
    for tokens in _split(_TOKEN.findall(command)):
        clause = _clause(tokens)
        if found and any(name.is_pronoun for name in clause.names):
            clause = replace(clause, names=_meant_by_it(found[-1]), texts=(), is_open=False)
        found.append(clause)
    return found


def _meant_by_it(before: Clause) -> tuple[Name, ...]:
    is_text = set(before.kinds) <= {Do.WRITE, Do.APPEND}
    return tuple(place.name for place in before.places) if is_text else before.names


def held_back(command: str) -> str:
    """The first word that says what is not to be done, or only perhaps, outside of quotation marks, or the `?` of a question; else empty."""
    plain = _unquoted(_TOKEN.findall(command))
    if _OTHER_THAN.search(" ".join(plain)):
        return "other than"
    words = (_bare(token).strip(".,;:!?()") for token in plain)
    is_question = command.rstrip().endswith("?") and not _ASKS_YOU.search(" ".join(plain))
    last = "?" if is_question else ""
    return next((word for word in words if _HOLDS_BACK.fullmatch(word)), last)


def pattern_in(command: str) -> str:
    """The first word with a `*` for any letters, outside of quotation marks; else empty."""
    plain = _unquoted(_TOKEN.findall(command))
    return next((word for word in plain if _PATTERN.search(word)), "")


def stray_in(command: str) -> str:
    """The first word with a quotation mark that has no other, or is inside of others, as in `"say "hi" now"`; else empty."""
    plain = _unquoted(_TOKEN.findall(command))
    return next((word for word in plain if _STRAY.search(word)), "")


def is_vague(place: Place) -> bool:
    """Whether words for what is not there yet may have more in them than its name: `archive and keep a copy`, `archive tomorrow`."""
    bare = without_filling(place.words)
    if place.is_quoted or " " not in bare:
        return False
    return not place.is_name or not _NEW_NAME.fullmatch(bare) or bool(_AND.search(place.words))


def is_loose(text: str, command: str) -> bool:
    """Whether a text to write stands in a command without quotation marks."""
    return all(_bare(token) != text for token in _TOKEN.findall(command) if _is_quoted(token))


def names_file(text: str) -> bool:
    """Whether a word of a text looks like the name of a file."""
    return any(FILE_NAME.search(word) for word in text.split())


def spans(words: str) -> list[str]:
    """What stands in quotation marks, and runs of words, longest last."""
    tokens = _TOKEN.findall(words)
    found = dict.fromkeys(_bare(each) for each in tokens if _is_quoted(each))
    for n_words in range(1, MAX_SPAN_WORDS + 1):
        for begin in range(len(tokens) - n_words + 1):
            if piece := _joined(tokens[begin : begin + n_words]):
                found[piece] = None
    return list(found)[:MAX_SPANS]


# --- clauses ------------------------------------------------------------------------------------------------------


def _split(tokens: Sequence[str]) -> list[list[str]]:
    """The tokens of each clause: a new one begins with a verb behind a comma, `and` or `then`."""
    found: list[list[str]] = [[]]
    pending: list[str] = []
    for token in tokens:
        if token.lower() in _BETWEEN and found[-1]:
            pending.append(token)
        elif (
            (pending or _ends(found[-1]))
            and _bare(token).lower() in _VERBS
            and _has_verb(found[-1])
        ):
            pending, found = [], [*found, [token]]
        else:
            found[-1] += [*pending, token]
            pending = []
    return [each for each in found if each]


def _ends(tokens: Sequence[str]) -> bool:
    """Whether a sentence ends there."""
    return bool(tokens) and not _is_quoted(tokens[-1]) and tokens[-1][-1] in ".!?:"


def _has_verb(tokens: Sequence[str]) -> bool:
    return any(_bare(token).lower() in _VERBS for token in tokens)


def _clause(tokens: list[str]) -> Clause:
    words = " ".join(tokens)
    at = next((n for n, token in enumerate(tokens) if _bare(token).lower() in _VERBS), None)
    if at is None:
        return _open(words, tokens)
    verb, rest = _bare(tokens[at]).lower(), tokens[at + 1 :]
    kinds = _VERBS[verb]
    if verb == "put" and not any(map(_is_quoted, rest)):
        kinds = (Do.MOVE,)
    into = _TO_PLACE if verb == "drop" else _TO_PLACE - {"to"}
    if kinds == (Do.DELETE,) and _marks(rest, into):
        kinds = (Do.MOVE,)  # thrown into a folder is not thrown away
    if kinds == (Do.DELETE,) and _FOR_GOOD.search(" ".join(_unquoted(tokens))):
        kinds = (Do.PURGE,)
    if kinds == (Do.PURGE,) and _FOR_GOOD.search(" ".join(_unquoted(rest))):
        rest = _TOKEN.findall(_FOR_GOOD.sub("", " ".join(rest)))
    if kinds != (Do.FIND,) and not _marks(rest, _WITH_TEXT):
        rest = _without_polite_end(rest)
    told = _told(words, kinds, rest, is_name=verb == "rename")
    before = "" if _POLITE.fullmatch(" ".join(tokens[:at])) else _joined(tokens[:at])
    return replace(told, before=before, is_new=verb == "create")


def _without_polite_end(rest: list[str]) -> list[str]:
    n_told = len(rest)
    while n_told > 1 and rest[n_told - 1].rstrip(".!?").lower() in _POLITE_END:
        n_told -= 1
    return rest[:n_told]


def _open(words: str, tokens: list[str]) -> Clause:
    """A clause without a known verb: a question asks for files; of others a model says what is meant."""
    places = _places(tokens)[1] or [Place(piece) for piece in spans(words)]
    texts = tuple(_bare(token) for token in tokens if _is_quoted(token))
    kinds: tuple[Do, ...] = (Do.FIND,)
    if not words.endswith("?"):
        kinds = (*kinds, Do.MOVE, Do.COPY, *((Do.WRITE, Do.APPEND) if texts else ()))
    return Clause(words, kinds, (_name(tokens),), tuple(places), texts, is_open=True)


def _told(words: str, kinds: tuple[Do, ...], rest: list[str], *, is_name: bool) -> Clause:
    """A clause by what stands behind its verb."""
    if kinds[0] in (Do.FIND, Do.DELETE, Do.PURGE):
        return Clause(words, kinds, _names([rest]))
    before, places = _places(rest)
    if not places:
        n_names = len(rest) - _ends_in_place(rest)
        before, places = [rest[:n_names]], [_place([each]) for each in rest[n_names:]]
    if is_name:
        places = [replace(place, is_name=True) for place in places]
    texts = list(map(_joined, before))
    if Do.WRITE in kinds or Do.APPEND in kinds:
        texts, places = _texts(rest, texts, places)
    return Clause(words, kinds, _names(before), tuple(places), tuple(filter(None, texts)))


def _names(pieces: Sequence[Sequence[str]]) -> tuple[Name, ...]:
    """The names that pieces of a clause may be."""
    return tuple(name for name in map(_name, pieces) if name.words)


def _name(tokens: Sequence[str]) -> Name:
    """What some tokens name: in quotation marks, as they stand there; or a list."""
    told = [token for token in tokens if token.lower() not in FILLING]
    if len(told) == 1 and _is_quoted(told[0]):
        return Name(_bare(told[0]), (_bare(told[0]),))
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token.lower() in _LISTS:
            parts.append([])
        elif _is_quoted(token) and parts[-1] and _is_quoted(parts[-1][-1]):
            parts.append([token])  # `"a.md" "b.md"`
        else:
            parts[-1].append(token)
    parts = [part for part in parts if part]
    quoted = tuple(_bare(token) for token in tokens if _is_quoted(token))
    return Name(_joined(tokens), quoted, _names(parts) if len(parts) > 1 else ())


def _places(rest: list[str]) -> tuple[list[list[str]], list[Place]]:
    """Where to, by each word that may say so, and what stands before that; `to x as y` is one place."""
    marks = _marks(rest, _TO_PLACE | _AS_NAME) or _marks(rest, _IN_PLACE)
    ends = [*marks[1:], len(rest)][: len(marks)]
    before = [rest[:at] for at in marks]
    places = [
        _place(rest[at + 1 : end], is_name=rest[at].lower() in _AS_NAME)
        for at, end in zip(marks, ends, strict=True)
    ]
    if len(places) > 1 and places[-1].is_name and not places[-2].is_name:
        *_, folder, name = places
        both = Place(f"{folder.words.rstrip('/')}/{name.words}", is_name=True)
        return before[-2:-1], [replace(both, is_quoted=folder.is_quoted and name.is_quoted)]
    places = [place for place in places if place.words]
    return before, [place for place in places if place.words.startswith("/")] or places


def _place(tokens: Sequence[str], *, is_name: bool = False) -> Place:
    told = [token for token in tokens if token.lower() not in FILLING]
    is_quoted = len(told) == 1 and _is_quoted(told[0])
    return Place(_joined(told if is_quoted else tokens), is_name=is_name, is_quoted=is_quoted)


def _texts(
    rest: list[str], before: list[str], places: list[Place]
) -> tuple[list[str], list[Place]]:
    """The texts of a clause that writes, and where to: `x with TEXT`, or `TEXT to x`."""
    if with_text := _marks(rest, _WITH_TEXT):
        at = with_text[0]
        told = [token for token in rest[:at] if token.lower() not in FILLING]
        place = _place(told or rest[:at])
        texts = [_bare(token) for token in rest[at + 1 :] if _is_quoted(token)]
        return texts or [_LABEL.sub("", _joined(rest[at + 1 :]))], [place]
    said = {place.words for place in places}
    quoted = [_bare(token) for token in rest if _is_quoted(token)]
    bare = [_LABEL.sub("", text) for text in before]
    return [text for text in quoted if text not in said] or bare, places


def _ends_in_place(rest: Sequence[str]) -> bool:
    """Whether the last word is a place though nothing says so, as in `mv a.md b`."""
    is_pair = len(rest) == 2 and rest[0].lower() not in FILLING
    return is_pair or (len(rest) > 1 and any(char in rest[-1].rstrip(".") for char in "/."))


def _marks(rest: Sequence[str], marks: frozenset[str]) -> list[int]:
    """Where one of these words stands, with something behind it."""
    return [at for at, (word, _) in enumerate(pairwise(rest)) if word.lower() in marks]


def _unquoted(tokens: Sequence[str]) -> list[str]:
    return [token for token in tokens if not _is_quoted(token)]


def _is_quoted(token: str) -> bool:
    return len(token) > 2 and token[0] in _OPENING and token[-1] in _CLOSING


def _joined(tokens: Sequence[str]) -> str:
    """Tokens as the piece of text that they are; a list keeps its commas."""
    return re.sub(r"\s+([,;])", r"\1", " ".join(map(_bare, tokens))).strip(" ,;")


def _bare(token: str) -> str:
    if _is_quoted(token):
        return token[1:-1]
    if token in (",", ";"):
        return token
    return token.lstrip("\"'`(\u201c").rstrip("\"'`.:!?)\u201d")
