"""Asking what becomes of a program that a crash cut off: by `aios recover`, and among the approvals as well."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aios.abi.approvals import RECOVER, Approval, ApprovalState
from aios.abi.recovery import Choice, Question
from aios.errors import AiosError
from aios.kernel.access.policy import digest_of
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.approvals.asked import Asked
from aios.kernel.process import Process


@asynccontextmanager
async def asked_owner(
    approvals: Approvals, process: Process, question: Question, decide: Callable[[Choice], None]
) -> AsyncIterator[None]:
    """Ask, and tell `decide` the answer, which may have been given under the kernel before; when the block ends it is carried out.

    If it cannot be asked so, it still is by `aios recover`.
    """
    row: Approval | None = None

    def hear(told: Approval) -> None:
        if row is not None and told.id == row.id and told.state is ApprovalState.ANSWERED:
            for choice in question.choices:
                if choice == told.said:
                    decide(choice)

    if approvals.can_ask:
        approvals.watchers.append(hear)
        try:
            row = await approvals.inquire(process, _asked(process, question))
            hear(row)
        except AiosError:  # too many are open
            row = None
    try:
        yield
        if row is not None:
            approvals.withdraw(row.id)
            approvals.take_answered(row.id)
    finally:
        if approvals.can_ask:
            approvals.watchers.remove(hear)


def settle(approvals: Approvals, process: Process, choice: Choice, *, by: str) -> None:
    """The owner has answered by `aios recover`."""
    for row in approvals.open_about(process.pid, RECOVER, _resource(process)):
        approvals.answer_elsewhere(row, choice, by=by)


def _asked(process: Process, question: Question) -> Asked:
    return Asked(
        RECOVER,
        _resource(process),
        digest_of([question.why, question.choices]),
        question.why,
        choices=question.choices,
        is_lasting=True,
    )


def _resource(process: Process) -> str:
    return f"Process {process.name} ({process.pid})"
