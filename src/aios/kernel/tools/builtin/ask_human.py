"""`ask_human`: a question in words to the owner of the kernel."""

from typing import TYPE_CHECKING

from aios.abi.approvals import MAX_CHOICES, AskHuman
from aios.abi.tools import Traits
from aios.kernel.tools.builtin.making import make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

if TYPE_CHECKING:
    from aios.abi.types import JsonObject

LONGEST_S = 3_600.0
MARGIN_S = 1.0
"""The question ends so long before the tool would be cut off: its caller is told that nobody answered."""
NOBODY = "(nobody answered in time)"


def ask_human() -> Tool:
    """The tool."""
    choices: JsonObject = {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
        "maxItems": MAX_CHOICES,
        "description": "the answers that there are; leave out to let them answer in words",
    }
    return make(
        "ask_human",
        "Ask the human whom you work for, and wait for the answer. For what only they can know or decide.",
        _run,
        parameters={"question": string("what to ask", min_length=1), "choices": choices},
        required=["question"],
        traits=Traits(effect="pure", timeout_s=LONGEST_S),
        acts_by_calls=True,
    )


async def _run(job: Job) -> Outcome:
    given = job.arguments.get("choices")
    choices = tuple(str(each) for each in given) if isinstance(given, list) else ()
    timeout_s = max(job.timeout_s - MARGIN_S, job.timeout_s / 2)
    call = AskHuman(text=job.text("question"), choices=choices, timeout_s=timeout_s)
    said = await job.call(call)
    return Outcome(NOBODY if said.is_expired else said.text)
