"""`files`: the files that the caller reaches, through the storage manager and with the caller's rights."""

from aios.abi.storage import (
    MAX_PIECE_BYTES,
    Append,
    Delete,
    Edit,
    FileEdit,
    FileList,
    FileRead,
    Move,
    Put,
)
from aios.abi.tools import Traits
from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.kernel.tools.builtin.making import as_json, choice, integer, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.footprint import Footprint, key_of
from aios.kernel.tools.tool import Job, Tool

MAX_READ_BYTES = 1 << 20
MAX_LISTED = 1_000


def files() -> Tool:
    """The tool."""
    return make(
        "files",
        "Read, write, append to, list, move and delete text files. Paths are relative to your own folder, or begin with /shared. "
        "Every change can be undone.",
        _run,
        parameters={
            "action": choice("what to do", "read", "write", "append", "list", "move", "delete"),
            "path": string("the file, or the folder for list"),
            "text": string("what to write or append", max_length=MAX_PIECE_BYTES),
            "target": string("where to move it"),
            "offset": integer("first byte to read", minimum=0, maximum=1 << 50, default=0),
            "length": integer(
                "most bytes to read", minimum=1, maximum=MAX_READ_BYTES, default=MAX_READ_BYTES
            ),
        },
        required=["action"],
        traits=Traits(effect="reversible"),
        acts_by_calls=True,
        trace=_trace,
    )


async def _run(job: Job) -> Outcome:
    match job.text("action"):
        case "read":
            return await _read(job)
        case "list":
            return await _list(job)
        case "write":
            return await _edit(job, Put(job.text("path"), job.text("text").encode()))
        case "append":
            return await _edit(job, Append(job.text("path"), job.text("text").encode()))
        case "move":
            return await _edit(job, Move(job.text("path"), job.text("target")))
        case _:
            return await _edit(job, Delete(job.text("path")))


async def _read(job: Job) -> Outcome:
    offset, length = job.integer("offset", 0), job.integer("length", MAX_READ_BYTES)
    found = await job.call(FileRead(path=job.text("path"), offset=offset, length=length))
    try:
        text = found.data.decode()
    except UnicodeDecodeError:
        if b"\0" in found.data:
            raise InvalidCall(
                f"{job.text('path')} is no text", hint="it can be moved, but not shown"
            ) from None
        text = found.data.decode("utf-8", "replace")
    end = offset + len(found.data)
    if end < found.size_bytes:
        text += f"\n[bytes {offset} to {end} of {found.size_bytes}; go on with offset {end}]"
    return Outcome(text)


async def _list(job: Job) -> Outcome:
    found = await job.call(FileList(path=job.text("path"), limit=MAX_LISTED))
    rows = [
        {"path": file.path, "is_folder": True}
        if file.is_folder
        else {"path": file.path, "size_bytes": file.size_bytes, "version": file.version}
        for file in found.files
    ]
    return as_json(rows)


async def _edit(job: Job, edit: Edit) -> Outcome:
    """Make one change; the answer tells which versions it made, so that it can be undone."""
    if not job.text("path"):
        raise InvalidCall("no `path`", hint="say which file")
    edited = await job.call(FileEdit(edits=(edit,), message=f"files {job.text('action')}"))
    rows = [
        {"path": each.path, "version": each.version, "size_bytes": each.size_bytes}
        for each in edited.versions
    ]
    return as_json({"changed": rows, "transaction": edited.transaction})


def _trace(arguments: JsonObject, home: str) -> Footprint:
    """Reading and listing share; the rest has its paths for itself."""
    paths = [str(arguments.get(name) or "") for name in ("path", "target") if name in arguments]
    keys = frozenset(key_of(path, home) for path in paths or [""])
    is_look = arguments.get("action") in {"read", "list"}
    return Footprint(reads=keys) if is_look else Footprint(writes=keys)
