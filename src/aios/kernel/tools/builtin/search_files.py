"""`search_files`: the lines of text files in which all the words stand, under a folder that the caller reaches."""

from aios.abi.storage import FileInfo, FileList, FileRead
from aios.abi.tools import Traits
from aios.kernel.tools.builtin.making import as_json, integer, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

MAX_FILES = 2_000
"""Files that one search reads; the answer says if there were more."""
MAX_FILE_BYTES = 1 << 20
MAX_LINE_CHARS = 300
PAGE = 500


def search_files() -> Tool:
    """The tool."""
    return make(
        "search_files",
        "Find the lines of files in which all the words stand, whatever their case.",
        _run,
        parameters={
            "words": string("words with spaces between them", min_length=1, max_length=1_000),
            "path": string("the folder; your own if left out"),
            "limit": integer("most lines to find", minimum=1, maximum=500, default=50),
        },
        required=["words"],
        traits=Traits(effect="pure", reads=("~/{path}",)),
        acts_by_calls=True,
    )


async def _run(job: Job) -> Outcome:
    words = job.text("words").casefold().split()
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
            hits += await _lines(job, file, words, limit - len(hits))
        after = page.next
        if not after:
            break
    return as_json({"hits": hits, "n_files": n_files, "is_whole": is_whole and not after})


async def _lines(job: Job, file: FileInfo, words: list[str], limit: int) -> list[dict[str, object]]:
    """The first lines of one file that have all the words; none of what is no text."""
    if file.size_bytes > MAX_FILE_BYTES:
        return []
    data = (await job.call(FileRead(path=file.path))).data
    if b"\0" in data:
        return []
    found: list[dict[str, object]] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        folded = line.casefold()
        if all(word in folded for word in words):
            found.append({"path": file.path, "line": number, "text": line[:MAX_LINE_CHARS]})
            if len(found) == limit:
                break
    return found
