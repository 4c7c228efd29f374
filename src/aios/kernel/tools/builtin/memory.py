"""`memory`: what the caller wants to know again. Forgetting is left to the caller's own code: it cannot be undone."""

from aios.abi.memory import Recall, Remember, Update
from aios.abi.tools import Traits
from aios.errors import InvalidCall
from aios.kernel.tools.builtin.making import as_json, choice, integer, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

MAX_NOTE_CHARS = 1 << 16
MAX_HITS = 50


def memory() -> Tool:
    """The tool."""
    return make(
        "memory",
        "Remember a fact for later, recall what is known about something, or put a new fact in the place of an outdated one.",
        _run,
        parameters={
            "action": choice("what to do", "remember", "recall", "update"),
            "text": string(
                "the fact, or what to look for", min_length=1, max_length=MAX_NOTE_CHARS
            ),
            "id": integer("the note to update", minimum=0, maximum=1 << 53, default=0),
            "limit": integer("most notes to recall", minimum=1, maximum=MAX_HITS, default=5),
        },
        required=["action", "text"],
        traits=Traits(effect="reversible"),
        acts_by_calls=True,
    )


async def _run(job: Job) -> Outcome:
    text = job.text("text")
    if not text.strip():
        raise InvalidCall("`text` is only blanks", hint="say it in words")
    match job.text("action"):
        case "remember":
            return as_json({"id": (await job.call(Remember(text=text, source="tool"))).id})
        case "recall":
            found = await job.call(Recall(query=text, limit=job.integer("limit", 5)))
            return as_json([{"id": hit.note.id, "text": hit.note.text} for hit in found.hits])
        case _:
            note = job.integer("id", 0)
            if not note:
                raise InvalidCall("no `id` of a note", hint="recall tells the ids")
            return as_json({"id": (await job.call(Update(id=note, text=text))).id})
