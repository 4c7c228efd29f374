"""Which requests processes make: what each action is asked about, with which effects, and whether a human is asked. Pure.

Whoever explains or tests policies without a kernel looks here, so that he is answered what a kernel does. A test holds it against the table of system calls.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from aios.abi.access import Decision, Principal, Request, Resource, Verdict
from aios.abi.types import Kind, Right
from aios.kernel.access.policy import TOOL_RUN, Policies
from aios.kernel.access.rights import DEFAULTS

PURE, REVERSIBLE, COMPENSABLE, IRREVERSIBLE = "pure", "reversible", "compensable", "irreversible"
EFFECTS = (PURE, REVERSIBLE, COMPENSABLE, IRREVERSIBLE)

ASKED: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "process.self": {"Kernel": (PURE, IRREVERSIBLE)},
    "process.see": {"Kernel": (PURE,), "Process": (PURE,)},
    "process.signal": {"Process": (REVERSIBLE, IRREVERSIBLE)},
    "process.spawn": {"Kernel": (COMPENSABLE, IRREVERSIBLE), "Process": (COMPENSABLE,)},
    "guest.admit": {"Kernel": (COMPENSABLE,)},
    "model.use": {"Kernel": (PURE,)},
    "context.use": {"Kernel": EFFECTS},
    "log.write": {"Kernel": (COMPENSABLE,)},
    "budget.set": {"Process": (REVERSIBLE,)},
    "scheduler.set": {"Kernel": (PURE, REVERSIBLE)},
    "timer.set": {"Kernel": (PURE, REVERSIBLE, COMPENSABLE)},
    "mail.use": {"Kernel": EFFECTS, "Process": (COMPENSABLE,)},
    "file.read": {"Path": (PURE,)},
    "file.write": {"Path": (REVERSIBLE, IRREVERSIBLE)},
    "file.mount": {"Kernel": (COMPENSABLE,)},
    "memory.read": {"Kernel": (PURE,), "Process": (PURE,)},
    "memory.write": {"Kernel": (REVERSIBLE, COMPENSABLE, IRREVERSIBLE)},
    "tool.use": {"Kernel": (PURE,)},
    "tool.offer": {"Kernel": (REVERSIBLE, COMPENSABLE)},
    "tool.install": {"Kernel": (COMPENSABLE,)},
    "human.ask": {"Kernel": (COMPENSABLE,)},
    "approval.give": {"Kernel": (PURE, COMPENSABLE)},
    "kernel.info": {"Kernel": (PURE,)},
    "kernel.shutdown": {"Kernel": (IRREVERSIBLE,)},
    TOOL_RUN: {"Tool": EFFECTS},
})  # fmt: skip
"""The effects of the calls behind each action, the mildest first, by the type of what they are asked about."""

NO_RIGHT, UNASKED = "kernel.no-right", "kernel.not-asked"


def is_own(action: str, resource: Resource) -> bool:
    """Whether what is asked about is the caller's own: calls about processes, mail excepted, reach only those that the caller rules."""
    return resource.type == "Process" and action != Right.MAIL.value


def decide(
    policies: Policies, principals: tuple[Principal, ...], request: Request, *, can_ask: bool
) -> Decision:
    """What a kernel does with a request of a process, whose principal is the last; the others are those that started it.

    Args:
        policies: All that it has.
        principals: As `Policies.decide` takes them.
        request: One that `ASKED` has.
        can_ask: Whether there is anybody to ask.
    """
    right = Right.TOOL_USE if request.action == TOOL_RUN else Right(request.action)
    for each in principals:
        if right not in DEFAULTS[Kind(each.kind)]:
            why = f"{each.name} ({each.kind}) has no right `{right.value}`"
            return Decision(Verdict.DENY, (why,), (NO_RIGHT,))
    if request.action == Right.FILE_WRITE.value and request.effect == IRREVERSIBLE:
        # who may not write to a path at all purges nothing there
        writing = msgspec.structs.replace(request, effect=REVERSIBLE)
        decision = decide(policies, principals, writing, can_ask=can_ask)
        if not decision.is_allowed:
            return decision
    decision = policies.decide(principals, request)
    if decision.verdict is not Verdict.ASK:
        return decision
    return _asked(decision, request, can_ask=can_ask)


def _asked(decision: Decision, request: Request, *, can_ask: bool) -> Decision:
    """What becomes of a request about which a policy asks."""
    about = (request.action, request.effect)
    if about == (Right.SELF.value, IRREVERSIBLE):
        why = "nobody is asked whether a process may end"
        return Decision(Verdict.ALLOW, (*decision.reasons, why), (UNASKED,))
    why = ""
    if request.action == Right.APPROVE.value:
        why = "who answers would wait for himself"
    elif request.resource.type == "Path" and request.effect != IRREVERSIBLE:
        why = "a question cannot wait in the middle of a transaction"
    elif not can_ask:
        why = "nobody can be asked: approvals.timeout_s is 0"
    return Decision(Verdict.DENY, (*decision.reasons, why), (UNASKED,)) if why else decision
