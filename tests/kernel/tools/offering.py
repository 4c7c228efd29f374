"""Processes that offer tools and carry them out, for tests."""

import json
from collections.abc import Awaitable, Callable

import anyio

from aios.abi.tools import (
    ToolDeclaration,
    ToolJob,
    ToolRegister,
    ToolResult,
    ToolReturn,
    ToolRun,
    ToolTake,
    Traits,
)
from aios.abi.types import JsonObject, Pid
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel

Carry = Callable[[ToolJob], Awaitable[str]]
FREE = Traits(effect="pure")


def declared(
    name: str,
    traits: Traits = FREE,
    *,
    parameters: JsonObject | None = None,
    returns: JsonObject | None = None,
) -> ToolDeclaration:
    """A tool that takes any object, unless said otherwise."""
    return ToolDeclaration(name, "", parameters or {"type": "object"}, returns, traits)


async def offer(
    kernel: Kernel, process_name: str, carry: Carry, *tools: ToolDeclaration, is_json: bool = False
) -> Pid:
    """A process that offers these tools and answers each call with what `carry` brings; returns when they are there."""
    ready = anyio.Event()

    async def body(gate: LocalGate) -> None:
        await gate.call(ToolRegister(tools=tools))
        ready.set()
        async with anyio.create_task_group() as tasks:
            while True:
                for job in (await gate.call(ToolTake())).value.jobs:
                    tasks.start_soon(answer, gate, job)

    async def answer(gate: LocalGate, job: ToolJob) -> None:
        text = await carry(job)
        await gate.call(ToolReturn(id=job.id, text=text, is_json=is_json))

    pid = kernel.spawn_task(process_name, body)
    await ready.wait()
    return pid


async def run_tool(gate: LocalGate, tool: str, /, **arguments: object) -> ToolResult:
    """Run a tool and return its result."""
    return (await gate.call(ToolRun(name=tool, arguments=arguments))).value


async def echo(job: ToolJob) -> str:
    """Gives back what it was given."""
    return json.dumps({"caller": job.caller, "arguments": json.loads(job.arguments)})


async def idle(_: LocalGate) -> None:
    """Waits for its end."""
    await anyio.sleep_forever()
