"""A question before it is in the book: what is asked, and of whom."""

import msgspec
from msgspec import Struct

from aios.abi.approvals import HUMAN_ASK, Approval
from aios.kernel.access.manager import MAX_SHOWN_CHARS
from aios.kernel.approvals import book
from aios.kernel.process import Process

LASTING_S = 10 * 365 * 86_400.0


class Asked(Struct, frozen=True):
    """A question on its way: `action`, `resource` and `digest` are what an answer is for."""

    action: str
    resource: str
    digest: str
    why: str
    shown: str = ""
    effect: str = "pure"
    is_tainted: bool = False
    choices: tuple[str, ...] | None = None
    """None: whether the act may be."""
    timeout_s: float | None = None
    """At most the knob's."""
    is_lasting: bool = False
    """It stays open until somebody answers, or the process ends."""


def question_of(process: Process, asked: Asked, *, now_unix_s: float, longest_s: float) -> Approval:
    """What a process asks, as a question without a number."""
    longest_s = LASTING_S if asked.is_lasting else longest_s
    timeout_s = longest_s if asked.timeout_s is None else min(asked.timeout_s, longest_s)
    question = Approval(
        id=0,
        pid=process.pid,
        name=process.name,
        program=process.program,
        code=process.code,
        action=asked.action,
        resource=asked.resource,
        effect=asked.effect,
        is_tainted=asked.is_tainted,
        digest=asked.digest,
        why=asked.why,
        arguments=_cut(asked.shown),
        choices=asked.choices or (),
        asked_unix_s=now_unix_s,
        expires_unix_s=now_unix_s + timeout_s,
    )
    if asked.choices is not None:
        return question
    return msgspec.structs.replace(question, choices=book.choices_for(question))


def told(row: Approval) -> str:
    """What is asked for, in a few words, without the arguments."""
    return f"`{row.action}` on {row.resource}" if row.action != HUMAN_ASK else "a question"


def _cut(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}... (and {len(text) - MAX_SHOWN_CHARS} characters more)"
