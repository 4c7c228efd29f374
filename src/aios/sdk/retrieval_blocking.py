"""`aios.sdk.retrieval` for code that waits: `client.files.retrieve("when is the train?")`."""

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
    from aios.sdk.blocking import BlockingGate


class BlockingFileSearch:
    """`FileSearch` for code that waits; its methods say more."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def retrieve(
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
        """Find files by words and by meaning, best first; each hit names file, version and lines, and says why."""
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
        return (self._gate.call(call)).value

    def group_by(
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
        return (self._gate.call(call)).value

    def join(
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
        return (self._gate.call(call)).value

    def index(self, *, is_waiting: bool = False, deadline_s: float | None = None) -> IndexInfo:
        """How far the index is; with `is_waiting` when all that was written before is indexed."""
        call = build(FileIndex, is_waiting=is_waiting, deadline_s=deadline_s)
        return (self._gate.call(call)).value

    def reindex(self) -> None:
        """Make the index anew, in the background; only the owner may."""
        self._gate.call(FileReindex())
