"""`shell` and `python`: run code that a model wrote, behind walls: in the caller's workspace, bounded, with the network of the caller's program: none, as a rule.

A caller that has no workspace of its own (a guest, the owner, an agent inside the kernel) gets an empty folder for each run.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aios.abi.tools import Traits
from aios.errors import ToolFailed
from aios.kernel.sandbox.places import Places, interpreter, python_places
from aios.kernel.sandbox.view import View
from aios.kernel.tools.builtin.making import as_json, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.executable import attend, own_folder
from aios.kernel.tools.launcher import PATH, Launcher, Order
from aios.kernel.tools.manifest import Bounds
from aios.kernel.tools.tool import Job, Tool

BOUNDS = Bounds(output_bytes=256 << 10)
MAX_CHARS = 64 << 10
TITLE_CHARS = 100
TRAITS = Traits(effect="compensable", timeout_s=120.0)


def shell(launcher: Launcher) -> Tool:
    """Run a command line."""

    async def run(job: Job) -> Outcome:
        return await _run(job, launcher, ("/bin/sh", "-c", job.text("command")), Places((), {}))

    return make(
        "shell",
        "Run a command line in your workspace and get its output and status. There is no network, unless your program has one.",
        run,
        parameters={
            "command": string("such as ls -l | head", min_length=1, max_length=MAX_CHARS),
            "input": string("what it reads on standard input", max_length=MAX_CHARS),
        },
        required=["command"],
        traits=TRAITS,
        is_open=True,
    )


def python(launcher: Launcher) -> Tool:
    """Run a program in Python."""

    async def run(job: Job) -> Outcome:
        command = (interpreter(), "-I", "-c", job.text("code"))
        return await _run(job, launcher, command, python_places())

    return make(
        "python",
        "Run a program in Python in your workspace and get what it prints. There is no network, unless your program has one.",
        run,
        parameters={
            "code": string("the program", min_length=1, max_length=MAX_CHARS),
            "input": string("what it reads on standard input", max_length=MAX_CHARS),
        },
        required=["code"],
        traits=TRAITS,
        is_open=True,
    )


async def _run(job: Job, launcher: Launcher, command: tuple[str, ...], places: Places) -> Outcome:
    await launcher.require_walls()
    async with _workspace(job) as (view, kept):
        env = {"PATH": PATH, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        seen = Places((*places.readable, *view.readable), places.links)
        order = Order(command, env, view.cwd, BOUNDS, seen, view.writable, kept)
        given = job.text("input").encode("utf-8", "replace")
        async with (
            launcher.watching(job.run, _title(job), order),
            launcher.networked(job.run.process, order) as ordered,
        ):
            status, output = await attend(job, launcher, ordered, given=given)
    if status is None:
        raise ToolFailed(
            f"it wrote over {BOUNDS.output_bytes} bytes and was ended",
            hint="write to a file, or use head",
        )
    said = bytes(output.data).decode("utf-8", "replace")
    complaint = output.complaint.decode("utf-8", "replace")
    return as_json({"status": status, "output": said, "errors": complaint})


@asynccontextmanager
async def _workspace(job: Job) -> AsyncIterator[tuple[View, tuple[Path, ...]]]:
    """Where it runs, and the folders of it that outlive the run."""
    view = job.run.process.view
    if view is not None:
        yield view, tuple(filter(Path.is_dir, view.writable))
        return
    async with own_folder() as folder:
        yield View(folder, (), (folder,)), ()


def _title(job: Job) -> str:
    """What the versions of a run say that it was."""
    line = f"{job.run.detail}: {job.text('command') or job.text('code')}".split("\n", 1)[0]
    return line if len(line) <= TITLE_CHARS else f"{line[: TITLE_CHARS - 3]}..."
