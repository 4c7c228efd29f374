"""Finding files by what is in them: `await client.files.retrieve("when is the train?")`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aios.abi.retrieval import (
    FileGroupBy,
    FileGroups,
    FileIndex,
    FileJoin,
    FileJoined,
    FileReindex,
    FileRetrieve,
    GroupKey,
    IndexInfo,
    Retrieved,
)
from aios.sdk.requests import build, listed

if TYPE_CHECKING:
    from aios.abi.gate import Gate


class FileSearch:
    """The methods of `client.files` that find files."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def retrieve(
        self,
        query: str = "",
        k: int = 10,
        keywords: Iterable[str] = (),
        *,
        under: str = "",
        type: str = "",  # noqa: A002 - the word of the call
        since_unix_s: float | None = None,
        per_file: int = 1,
        is_waiting: bool = False,
        deadline_s: float | None = None,
    ) -> Retrieved:
        """Find files by words and by meaning, best first; each hit names file, version and lines, and says why.

        Args:
            query: What is looked for, in any words.
            k: At most so many hits.
            keywords: Words or phrases that must all be in the file, in its text or name; alone they are the query.
            under: A file or folder; everything that the caller may read if empty.
            type: An extension (`md`) or a kind (`code`, `pdf`).
            since_unix_s: Only what was changed after this.
            per_file: At most so many hits of one file.
            is_waiting: Until all that was written before is indexed.
            deadline_s: Longest time for that.

        Raises:
            AccessDenied: `under` may not be read.
            InvalidCall: There is neither a query nor a keyword.
        """
        call = build(
            FileRetrieve,
            query=query,
            k=k,
            keywords=listed(keywords),
            under=under,
            type=type,
            since_unix_s=since_unix_s,
            per_file=per_file,
            is_waiting=is_waiting,
            deadline_s=deadline_s,
        )
        return (await self._gate.call(call)).value

    async def group_by(
        self,
        by: GroupKey,
        query: str = "",
        k: int = 50,
        *,
        keywords: Iterable[str] = (),
        under: str = "",
        type: str = "",  # noqa: A002 - the word of the call
        since_unix_s: float | None = None,
        is_waiting: bool = False,
        deadline_s: float | None = None,
    ) -> FileGroups:
        """Put files into groups by folder, type, author, day or topic; with a query the `k` best hits of it."""
        call = build(
            FileGroupBy,
            by=by,
            query=query,
            k=k,
            keywords=listed(keywords),
            under=under,
            type=type,
            since_unix_s=since_unix_s,
            is_waiting=is_waiting,
            deadline_s=deadline_s,
        )
        return (await self._gate.call(call)).value

    async def join(
        self,
        left: str,
        right: str,
        k: int = 1,
        *,
        type: str = "",  # noqa: A002 - the word of the call
        max_left: int = 50,
        is_waiting: bool = False,
        deadline_s: float | None = None,
    ) -> FileJoined:
        """Find for each file below `left` the `k` files below `right` that are most like it."""
        call = build(
            FileJoin,
            left=left,
            right=right,
            k=k,
            type=type,
            max_left=max_left,
            is_waiting=is_waiting,
            deadline_s=deadline_s,
        )
        return (await self._gate.call(call)).value

    async def index(
        self, *, is_waiting: bool = False, deadline_s: float | None = None
    ) -> IndexInfo:
        """How far the index is; with `is_waiting` when all that was written before is indexed."""
        call = build(FileIndex, is_waiting=is_waiting, deadline_s=deadline_s)
        return (await self._gate.call(call)).value

    async def reindex(self) -> None:
        """Make the index anew, in the background; only the owner may."""
        await self._gate.call(FileReindex())
