"""What comes of a tool's outcome: whether it is what the tool promised, and where a long one is kept."""

import msgspec

from aios.abi.counting import count_values
from aios.abi.storage import FileEdit, Put
from aios.abi.tools import MAX_RESULT_BYTES, ToolResult
from aios.config import ToolsConfig
from aios.errors import AiosError, ToolFailed
from aios.kernel.process import INIT_PID, Process
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool
from aios.readers import from_json

MAX_CHECKED_VALUES = 250_000
"""In a result that has a schema: while they are made, for 0.1 s, nothing else runs."""
FOLDER = "tool-results"
INIT_FOLDER = "/agents/init"
"""Init's own paths begin at the root; nobody else can be called init."""


def checked(tool: Tool, outcome: Outcome) -> Outcome:
    """The outcome, if it is what the tool declares.

    Raises:
        ToolFailed: It is not, or it is too long.
    """
    size_bytes = _size(outcome)
    if size_bytes > MAX_RESULT_BYTES:
        raise ToolFailed(
            f"{tool.name} brought {size_bytes} bytes, over the limit of {MAX_RESULT_BYTES}",
            hint="ask it for less",
        )
    if not outcome.is_json and tool.returns is None:
        return outcome
    try:
        value = _read(tool, outcome) if outcome.is_json else outcome.text
    except (ValueError, RecursionError) as error:
        raise ToolFailed(
            f"{tool.name} brought JSON that is none: {error}", hint="tell its author"
        ) from error
    faults = tool.returns.faults(value) if tool.returns is not None else []
    if faults:
        raise ToolFailed(
            f"{tool.name} brought what it does not promise: {'; '.join(faults)}",
            hint="tell its author",
        )
    return outcome


def _read(tool: Tool, outcome: Outcome) -> object:
    """The value that JSON stands for; without a schema nothing asks for it, so it is only known to be JSON."""
    if tool.returns is None:
        return from_json(outcome.text, msgspec.Raw)
    data = outcome.text.encode()
    if count_values(data, MAX_CHECKED_VALUES) > MAX_CHECKED_VALUES:
        raise ToolFailed(
            f"{tool.name} brought over {MAX_CHECKED_VALUES:,} values, too many to check against its schema",
            hint="ask it for less; or tell its author to declare no `returns`",
        )
    return msgspec.json.decode(data)


async def deliver(
    outcome: Outcome,
    job: Job,
    notes: tuple[str, ...],
    config: ToolsConfig,
    *,
    is_cached: bool = False,
) -> ToolResult:
    """The result for the caller. A long one is kept in a file of the caller's, and its beginning shown."""
    size_bytes = _size(outcome)
    if size_bytes <= config.max_result_bytes:
        return ToolResult(
            outcome.text, outcome.is_json, size_bytes, notes=notes, is_cached=is_cached
        )
    preview = outcome.text.encode("utf-8", "replace")[: config.preview_bytes]
    path = _path(job.run.process, job.run.record_seq)
    try:
        data = outcome.text.encode("utf-8", "replace")
        await job.call(FileEdit(edits=(Put(path, data),), message="a long result of a tool"))
        where = f"the whole is in the file {path}"
    except AiosError as error:  # no right to files, or no room: better a part than nothing
        where, path = f"the rest is lost: {error.message}", ""
    notes = (*notes, f"cut: {len(preview)} of {size_bytes} bytes; {where}")
    return ToolResult(
        preview.decode("utf-8", "ignore"),
        size_bytes=size_bytes,
        kept_at=path,
        notes=notes,
        is_cached=is_cached,
    )


def _path(process: Process, seq: int) -> str:
    """The file for the result of a call; relative to the caller's folder, if it has one."""
    start = f"{INIT_FOLDER}/" if process.pid == INIT_PID else ""
    return f"{start}{FOLDER}/{process.pid}-{seq}.txt"


def _size(outcome: Outcome) -> int:
    return len(outcome.text.encode("utf-8", "surrogatepass"))
