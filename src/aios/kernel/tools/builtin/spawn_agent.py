"""`spawn_agent`: run a program as a child of the caller and bring its result."""

from typing import TYPE_CHECKING

from aios.abi.tools import Traits
from aios.kernel.tools.agents import spawn_and_wait
from aios.kernel.tools.builtin.making import make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

if TYPE_CHECKING:
    from aios.abi.types import JsonObject

MAX_ARGS = 64


def spawn_agent() -> Tool:
    """The tool. It waits as long as an agent may take; the caller's deadline and budget bound it."""
    args: JsonObject = {
        "type": "array",
        "items": {"type": "string", "maxLength": 65_536},
        "maxItems": MAX_ARGS,
        "description": "its arguments, such as --task and the task",
    }
    return make(
        "spawn_agent",
        "Run another agent, a program folder, as a child of yours; waits for its end and brings its result.",
        _run,
        parameters={"program": string("the folder with agent.toml", min_length=1), "args": args},
        required=["program"],
        traits=Traits(effect="irreversible", timeout_s=3_600.0),
        acts_by_calls=True,
    )


async def _run(job: Job) -> Outcome:
    args = job.arguments.get("args")
    words = [str(each) for each in args] if isinstance(args, list) else []
    return Outcome(await spawn_and_wait(job, job.text("program"), words))
