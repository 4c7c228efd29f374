"""The calls that find files by what is in them. What they do is `kernel/retrieval/`; `docs/concepts/retrieval.md` tells how.

They answer from an index that follows the files in the background. Only what the caller may read is looked at, ranked or counted.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call, Done
from aios.abi.storage import FilePath, VersionNumber
from aios.abi.types import Count

QueryText = Annotated[str, Meta(max_length=8_192)]
Keywords = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=32)
]
FileType = Annotated[str, Meta(max_length=32)]
"""An extension (`md`) or a kind: text, markdown, html, json, csv, code, pdf, docx. Empty is any."""

MAX_HITS = 200
MAX_PENDING = 1_000
"""Changes that are counted one by one; more are that many."""


class FileHit(Struct, frozen=True):
    """A passage of a file that was found.

    `version` is the version that was indexed. The lines count from 1; those of a PDF or DOCX are of the text in it, and both are 0
    when only the name was found. `score` orders the hits of one answer and means nothing beside that; `why` says which words of the
    query are in the passage or in the name, and how near its meaning is (a cosine).
    """

    path: str
    version: VersionNumber
    first_line: Count
    last_line: Count
    text: str
    score: float
    why: tuple[str, ...]
    changed_unix_s: float


class Retrieved(Answer, frozen=True):
    """Hits, best first. `n_files` were looked at; `n_pending` changes are not indexed yet, 1,000 stands for more; `embedder` is empty if only words were compared."""

    hits: tuple[FileHit, ...]
    n_files: Count
    n_pending: Count
    embedder: str


class FileRetrieve(Call[Retrieved], frozen=True, tag="file_retrieve"):
    """Find files by words and by meaning: the best `k` hits, at most `per_file` of one file.

    `keywords` must all be in the file, in its text or name; alone they are the query as well. `under` is a file or folder, the caller's own
    folder if relative and everything that it may read if empty. With `is_waiting` all that was written before the call is found.

    Raises:
        InvalidCall: There is neither a query nor a keyword.
        NotFound: Nothing is at `under`.
    """

    query: QueryText = ""
    k: Annotated[int, Meta(ge=1, le=MAX_HITS)] = 10
    keywords: Keywords = ()
    under: FilePath = ""
    type: FileType = ""
    since_unix_s: float | None = None
    per_file: Annotated[int, Meta(ge=1, le=MAX_HITS)] = 1
    is_waiting: bool = False


GroupKey = Literal["folder", "type", "author", "day", "topic"]


class FileGroup(Struct, frozen=True):
    """Files that have something in common. `paths` are the first of them, the best or newest first; `n_files` is how many there are."""

    key: str
    n_files: Count
    size_bytes: Count
    paths: tuple[str, ...]


class FileGroups(Answer, frozen=True):
    """Groups, the largest first. `n_pending` changes are not indexed yet."""

    groups: tuple[FileGroup, ...]
    n_files: Count
    n_pending: Count


class FileGroupBy(Call[FileGroups], frozen=True, tag="file_group_by"):
    """Put files into groups by their folder, type, last author, day (UTC) of their last change, or topic.

    All files that the other fields allow take part; with a query or keywords the `k` best of them. Topics are named by the words that set
    them apart; they need an embedder.

    Raises:
        NotFound: Nothing is at `under`.
        Unsupported: By topic, and there is no embedder.
    """

    by: GroupKey
    query: QueryText = ""
    k: Annotated[int, Meta(ge=1, le=MAX_HITS)] = 50
    keywords: Keywords = ()
    under: FilePath = ""
    type: FileType = ""
    since_unix_s: float | None = None
    is_waiting: bool = False


class FilePair(Struct, frozen=True):
    """A file and the passage elsewhere that is most like it."""

    path: str
    version: VersionNumber
    hit: FileHit


class FileJoined(Answer, frozen=True):
    """Pairs, in the order of the left paths, the best first for each. `n_pending` changes are not indexed yet."""

    pairs: tuple[FilePair, ...]
    n_pending: Count


class FileJoin(Call[FileJoined], frozen=True, tag="file_join"):
    """Find for each file below `left` the `k` files below `right` that are most like it, by words and by meaning.

    At most the first `max_left` files of the left take part. A file is never paired with itself.

    Raises:
        NotFound: Nothing is at `left`, or at `right`.
    """

    left: FilePath
    right: FilePath
    k: Annotated[int, Meta(ge=1, le=20)] = 1
    type: FileType = ""
    max_left: Annotated[int, Meta(ge=1, le=200)] = 50
    is_waiting: bool = False


class IndexProblem(Struct, frozen=True):
    """A file that is found by its name only, and why; or with `is_partial` by a part of it, and which."""

    path: str
    problem: str
    is_partial: bool = False


class IndexInfo(Answer, frozen=True):
    """How far the index is, counted over what the caller may read.

    `n_pending` changes are not in it yet, 1,000 stands for more. `n_text_files` have text; `problems` are the first of the others, and of those that have it in part. `n_unlike` passages wait for a vector of this embedder. `disk_bytes` and
    `fault`, which says what keeps the index from going on, are told to the owner only.
    """

    n_files: Count
    n_text_files: Count
    n_passages: Count
    n_pending: Count
    embedder: str
    n_unlike: Count = 0
    problems: tuple[IndexProblem, ...] = ()
    disk_bytes: Count = 0
    fault: str = ""


class FileIndex(Call[IndexInfo], frozen=True, tag="file_index"):
    """Ask how far the index is; with `is_waiting` when all that was written before the call is indexed."""

    is_waiting: bool = False


class FileReindex(Call[Done], frozen=True, tag="file_reindex"):
    """Forget the index and make it anew, in the background. Only the owner may."""
