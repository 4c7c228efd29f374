"""`search_files`: the lines of text files in which all the words stand, under a folder that the caller reaches."""

from collections.abc import Callable
from functools import partial
from itertools import islice

from anyio import to_thread
from msgspec import Struct

from aios.abi.storage import FileInfo, FileList, FileRead
from aios.abi.tools import Traits
from aios.kernel.tools.builtin.making import as_json, integer, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool
from aios.kernel.turns import Turns

MAX_FILES = 2_000
"""Files that one search reads; the answer says if there were more."""
MAX_FILE_BYTES = 1 << 20
SMALL_BYTES = 32 << 10
"""Files up to this length, of which a search may have hundreds, wait for none that is longer."""
MAX_LINE_CHARS = 300
PAGE = 500


class Lanes(Struct, frozen=True):
    """Turns to look through a file."""

    small: Turns
    long: Turns


def search_files() -> Tool:
    """The tool."""
    return make(
        "search_files",
        "Find the lines of files in which all the words stand, whatever their case.",
        partial(_run, Lanes(Turns(), Turns())),
        parameters={
            "words": string("words with spaces between them", min_length=1, max_length=1_000),
            "path": string("the folder; your own if left out"),
            "limit": integer("most lines to find", minimum=1, maximum=500, default=50),
        },
        required=["words"],
        traits=Traits(effect="pure", reads=("~/{path}",)),
        acts_by_calls=True,
    )


async def _run(lanes: Lanes, job: Job) -> Outcome:
    words = list(dict.fromkeys(job.text("words").casefold().split()))
    limit = job.integer("limit", 50)
    hits: list[dict[str, object]] = []
    n_files, after, is_whole = 0, "", True
    while len(hits) < limit and n_files < MAX_FILES:
        page = await job.call(
            FileList(path=job.text("path"), is_deep=True, after=after, limit=PAGE)
        )
        for file in page.files:
            if len(hits) >= limit or n_files >= MAX_FILES:
                is_whole = False
                break
            n_files += 1
            hits += await _search(job, lanes, file, partial(_lines, words, limit - len(hits)))
        after = page.next
        if not after:
            break
    return as_json({"hits": hits, "n_files": n_files, "is_whole": is_whole and not after})


async def _search(
    job: Job, lanes: Lanes, file: FileInfo, find: Callable[[bytes], list[tuple[int, str]]]
) -> list[dict[str, object]]:
    """The first lines of one file that have all the words; none of what is no text."""
    if file.size_bytes > MAX_FILE_BYTES:
        return []
    data = (await job.call(FileRead(path=file.path))).data
    turns = lanes.long if len(data) > SMALL_BYTES else lanes.small
    async with turns.turn(job.run):  # a second, if a long file is made for it
        found = await to_thread.run_sync(find, data)
    return [{"path": file.path, "line": number, "text": text} for number, text in found]


def _lines(words: list[str], limit: int, data: bytes) -> list[tuple[int, str]]:
    if b"\0" in data:
        return []
    lines = data.decode("utf-8", "replace").splitlines()
    numbered = ((number, line, line.casefold()) for number, line in enumerate(lines, 1))
    found = (
        (number, line[:MAX_LINE_CHARS])
        for number, line, folded in numbered
        if all(word in folded for word in words)
    )
    return list(islice(found, limit))
