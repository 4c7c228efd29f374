"""Tools that are programs of the operating system: started for each call, bounded, and gone with all they started when it ends."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from aios.abi.tools import ToolKind
from aios.errors import ToolFailed
from aios.kernel.sandbox.launch import Confined
from aios.kernel.sandbox.places import at_home, command_places
from aios.kernel.sandbox.scratch import Scratch, hidden_base
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.launcher import PATH, Launcher, Order
from aios.kernel.tools.manifest import Manifest, command_of, fill
from aios.kernel.tools.schema import Schema
from aios.kernel.tools.tool import Job, Tool

MAX_COMPLAINT_BYTES = 2_000
"""What is told of standard error; the end says most."""
ALL_AS_JSON = "json"


@dataclass
class Output:
    """What a program wrote, up to a limit."""

    limit: int
    data: bytearray = field(default_factory=bytearray)
    complaint: bytes = b""

    @property
    def is_over(self) -> bool:
        """It wrote more than it may."""
        return len(self.data) > self.limit


def executable(manifest: Manifest, launcher: Launcher) -> Tool:
    """A tool that runs the command of a manifest."""
    named = [word for word in (*manifest.command, *manifest.read) if "{" not in word]
    places = command_places(str(at_home(word)) for word in named)
    writable = tuple(at_home(word).resolve() for word in manifest.write)

    async def run(job: Job) -> Outcome:
        words = tuple(command_of(manifest.command, job.arguments))
        async with own_folder() as folder:
            env = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder)}
            env |= manifest.env
            order = Order(
                words, env, folder, manifest.bounds, places, (folder, *writable), writable
            )
            # Never the caller's network: arguments of one agent would reach what only another may.
            ways = launcher.networked(job.run.process, order, manifest.network)
            networked = ways if manifest.network else nullcontext(order)
            async with launcher.watching(job.run, manifest.name, order), networked as ordered:
                code, output = await attend(job, launcher, ordered, given=_stdin(manifest, job))
        return outcome_of(manifest.name, code, output, is_json=manifest.output == "json")

    return Tool(
        manifest.name,
        ToolKind.EXECUTABLE,
        manifest.description,
        run,
        Schema(manifest.parameters),
        Schema(manifest.returns) if manifest.returns is not None else None,
        manifest.traits,
        definition=manifest,
        is_open=not manifest.traits.is_pure,  # the owner says that its results depend on its arguments alone
    )


@asynccontextmanager
async def own_folder() -> AsyncIterator[Path]:
    """A folder for one run, gone after it."""
    folder = await anyio.to_thread.run_sync(Scratch, "tool", hidden_base())
    try:
        yield folder.path
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(folder.close)


async def attend(
    job: Job, launcher: Launcher, order: Order, *, given: bytes
) -> tuple[int | None, Output]:
    """Start it, feed it, read it to its end. However this ends, nothing of it is left. None: it wrote too much."""
    output = Output(order.bounds.output_bytes)
    running = await launcher.open(order)
    try:
        with job.run.holding(running.freeze, running.is_still):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_feed, running.process, given)
                tasks.start_soon(_read_complaint, running.process, output)
                tasks.start_soon(_end_rest, running)
                await _read(running.process, output)
                if not output.is_over:
                    await running.process.wait()
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            running.kill()
            await running.wait_gone()
            await running.process.aclose()
    await job.run.runnable()
    return (None if output.is_over else running.process.returncode), output


async def _end_rest(running: Confined) -> None:
    """When the program has ended, end what it left behind: it would hold the pipes open."""
    await running.process.wait()
    running.kill()


async def _feed(process: anyio.abc.Process, data: bytes) -> None:
    assert process.stdin is not None
    try:
        if data:
            await process.stdin.send(data)
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        return  # it does not want to read it


async def _read(process: anyio.abc.Process, output: Output) -> None:
    assert process.stdout is not None
    async for piece in process.stdout:
        output.data += piece
        if output.is_over:
            return


async def _read_complaint(process: anyio.abc.Process, output: Output) -> None:
    """Keep the end of standard error, however long it is."""
    assert process.stderr is not None
    async for piece in process.stderr:
        output.complaint = (output.complaint + piece)[-MAX_COMPLAINT_BYTES:]


def _stdin(manifest: Manifest, job: Job) -> bytes:
    if manifest.stdin == ALL_AS_JSON:
        return msgspec.json.encode(job.arguments)
    return (fill(manifest.stdin, job.arguments) or "").encode("utf-8", "replace")


def outcome_of(name: str, code: int | None, output: Output, *, is_json: bool) -> Outcome:
    """What a program brought; `code` as `attend` gave it.

    Raises:
        ToolFailed: It wrote too much, or ended with a status that is not 0.
    """
    if code is None:
        raise ToolFailed(
            f"{name} wrote over {output.limit} bytes and was ended",
            hint="ask it for less, or raise `bounds.output_bytes` of its manifest",
        )
    if code:
        said = output.complaint.decode("utf-8", "replace").strip()
        raise ToolFailed(
            f"{name} {ending(code)}{': ' if said else ''}{said}", hint="see its manifest"
        )
    return Outcome(bytes(output.data).decode("utf-8", "replace"), is_json=is_json)


def ending(code: int) -> str:
    """How a program ended, in words; a sandbox tells signal n as status 128 + n."""
    number = -code if code < 0 else code - 128
    if 0 < number < signal.NSIG:
        return f"was killed by signal {number}"
    return f"ended with status {code}"
