"""Agents as tools: a program is spawned as a child of the caller, with the caller's rights at most, and its result is the tool's."""

from collections.abc import Sequence
from contextlib import suppress

import anyio

from aios.abi.calls import Kill, Spawn, Wait
from aios.abi.tools import ToolKind
from aios.errors import AiosError, ToolFailed
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.manifest import Manifest, command_of
from aios.kernel.tools.schema import Schema
from aios.kernel.tools.tool import Job, Tool


def agent(manifest: Manifest) -> Tool:
    """A tool that spawns the program of a manifest; `command` are its arguments."""

    async def run(job: Job) -> Outcome:
        words = command_of(manifest.command, job.arguments)
        text = await spawn_and_wait(job, manifest.program, words)
        return Outcome(text, is_json=manifest.output == "json")

    return Tool(
        manifest.name,
        ToolKind.AGENT,
        manifest.description,
        run,
        Schema(manifest.parameters),
        Schema(manifest.returns) if manifest.returns is not None else None,
        manifest.traits,
        definition=manifest,
        acts_by_calls=True,
    )


async def spawn_and_wait(job: Job, program: str, args: Sequence[str]) -> str:
    """Run a program to its end as a child of the caller. Cut short, it kills the child.

    Returns: The result of the child.

    Raises:
        ToolFailed: It ended with a status that is not 0.
    """
    with anyio.CancelScope(
        shield=True
    ):  # cut short in here, it would leave a child that nobody waits for
        child = await job.call(Spawn(program=program, args=tuple(args)))
    end = None
    try:
        end = (await job.call(Wait(pid=child.pid))).exit
    finally:
        if end is None:
            with anyio.CancelScope(shield=True), suppress(AiosError):  # it may have ended by itself
                await job.gate.call(Kill(pid=child.pid, reason="its caller wants it no more"))
    if end.status:
        raise ToolFailed(
            f"process {child.pid} ({child.name}) ended with status {end.status}: {end.reason}".rstrip(
                ": "
            ),
            hint=f"`aios logs {child.pid}` shows what it wrote",
        )
    return end.result
