"""The calls about approvals: questions to a human, and the answers. What they do is `kernel/approvals/`."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from aios.abi.call import Answer, Call
from aios.abi.types import MAX_INT, Pid

MAX_TEXT_CHARS = 8_192
"""Of a question, and of an answer in words."""
MAX_CHOICES = 32
ONCE, PROCESS, ALWAYS, DENY = ACT_CHOICES = ("once", "process", "always", "deny")
"""The answers to whether an act may be: see `ApprovalAnswer`."""

HUMAN_ASK = "human.ask"
"""The action of a question in words."""
BUDGET_RAISE = "budget.raise"
"""The action of a question whether a process may spend more: `once` gives what the question says, a number so much."""
MCP_TRUST = "mcp.trust"
"""The action of a question whether an MCP server is what its owner trusts, as it is now: `once` is yes, for good."""
RECOVER = "process.recover"
"""The action of a question what becomes of a process that a crash cut off; its choices are those of `answer_question`."""

WAITS_FOR = "waits for approval "
"""How the `Advance` of a call begins that waits for an answer; the number of the question follows."""

ApprovalId = Annotated[int, Meta(ge=1, le=MAX_INT)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Choice = Annotated[str, Meta(min_length=1, max_length=256)]


class ApprovalState(Enum):
    """How a question stands."""

    OPEN = "open"
    ALLOWED = "allowed"
    DENIED = "denied"
    ANSWERED = "answered"  # in words, or by one of its choices
    USED = "used"  # the answer was taken by the one call that it was for
    EXPIRED = "expired"  # nobody answered in time: that is a no
    WITHDRAWN = "withdrawn"  # who asked wants to know no more, or has ended
    REVOKED = "revoked"


class Approval(Answer, frozen=True, tag="approval"):
    """A question to a human, and what became of it.

    `action`, `resource` and `digest` say what is asked about: an answer is for that process (or, if it is `always`, for that program with
    that code), for that tool as it is defined and for exactly those arguments. `arguments` shows them; past 16 KiB long texts and lists in them are cut short. `holds`: the
    answer counts when the same is asked again. `action` is `human.ask` for a question in words.
    """

    id: ApprovalId
    pid: Pid
    name: str
    program: str
    code: str
    """The digest of the program's folder when it began; empty where there is none."""
    action: str
    resource: str
    effect: str
    is_tainted: bool
    digest: str
    why: str
    """Which policies ask, or the question in words."""
    arguments: str
    choices: tuple[str, ...]
    """What may be answered; none: anything."""
    asked_unix_s: float
    expires_unix_s: float
    state: ApprovalState = ApprovalState.OPEN
    holds: bool = True
    said: str = ""
    by: str = ""
    """Who answered."""
    answered_unix_s: float | None = None


class ApprovalInfos(Answer, frozen=True, tag="approval_infos"):
    """Questions, the oldest first."""

    approvals: tuple[Approval, ...]


class ApprovalList(Call[ApprovalInfos], frozen=True, tag="approval_list"):
    """List the questions that wait for an answer; with `all` also answers that hold and what is over, of that the newest 4 MiB of text. Only the owner may."""

    all: bool = False


class ApprovalAnswer(Call[Approval], frozen=True, tag="approval_answer"):
    """Answer a question. Only the owner may: nobody lets himself or his child do anything.

    Whether an act may be is answered by `once` (this call), `process` (as often as this process repeats exactly this call), `always` (every process of
    this program that does, until anything in its folder changes) or `deny` (this process hears no, also when it asks again). Whether a process may spend
    more is answered by `once` (as much as the question says), a number (so much) or `deny`. Other questions are answered by one of their choices, or in words.

    Raises:
        Conflict: It is over.
        InvalidCall: That is no answer to it.
        NotFound: No such question.
    """

    id: ApprovalId
    answer: Text


class ApprovalRevoke(Call[Approval], frozen=True, tag="approval_revoke"):
    """Take an answer back: the next call of that kind is asked about again. What was let through stays done.

    Raises:
        Conflict: It does not hold any more, or is open still.
        NotFound: No such question.
    """

    id: ApprovalId


class HumanAnswer(Answer, frozen=True, tag="human_answer"):
    """What the human said. `is_expired`: nothing, in time."""

    text: str
    is_expired: bool = False


class AskHuman(Call[HumanAnswer], frozen=True, tag="ask_human"):
    """Ask the owner something, and wait for the answer: one of `choices`, or whatever is said if there are none.

    It survives the end of the kernel: a program that is run again asks the same and gets the answer, and nobody is asked twice. `timeout_s` is at most, and
    without it, `approvals.timeout_s`.

    Raises:
        ResourceExhausted: The process has `approvals.max_open` questions open.
        Unsupported: `approvals.timeout_s` is 0: nobody can be asked.
    """

    text: Annotated[Text, Meta(min_length=1)]
    choices: Annotated[tuple[Choice, ...], Meta(max_length=MAX_CHOICES)] = ()
    timeout_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
