"""Questions to the owner: `await client.approvals.ask("Which one?", choices=["a", "b"])`; for the owner also those that are open, and the answers.

An agent need do nothing to have its own acts approved: a call that is asked about waits, and raises `ApprovalDenied` or `ApprovalExpired` if it may not be.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aios.abi.approvals import (
    Approval,
    ApprovalAnswer,
    ApprovalList,
    ApprovalRevoke,
    AskHuman,
    HumanAnswer,
)
from aios.sdk.requests import build, listed

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Approvals:
    """What a client asks its owner; and, for the owner, what everybody asks."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def ask(
        self, text: str, *, choices: Sequence[str] = (), timeout_s: float | None = None
    ) -> HumanAnswer:
        """Ask the owner something and wait for what he says; see the call `ask_human`.

        Raises:
            ResourceExhausted: Too many questions are open.
            Unsupported: Nobody can be asked.
        """
        call = build(AskHuman, text=text, choices=listed(choices), timeout_s=timeout_s)
        return (await self._gate.call(call)).value

    async def list(self, *, include_over: bool = False) -> tuple[Approval, ...]:
        """The questions that are open; with `include_over` also answers that hold, and what is over.

        Raises:
            AccessDenied: The caller is not the owner.
        """
        return (await self._gate.call(ApprovalList(all=include_over))).value.approvals

    async def answer(self, number: int, answer: str) -> Approval:
        """Answer a question: `once`, `process`, `always`, `deny`, one of its choices, or words; see the call `approval_answer`.

        Raises:
            AccessDenied: The caller is not the owner.
            Conflict: It is over.
            InvalidCall: That is no answer to it.
            NotFound: No such question.
        """
        return (await self._gate.call(build(ApprovalAnswer, id=number, answer=answer))).value

    async def revoke(self, number: int) -> Approval:
        """Take an answer back.

        Raises:
            AccessDenied: The caller is not the owner.
            Conflict: It does not hold any more, or is open still.
            NotFound: No such question.
        """
        return (await self._gate.call(build(ApprovalRevoke, id=number))).value


class BlockingApprovals:
    """`Approvals` for code that waits."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def ask(
        self, text: str, *, choices: Sequence[str] = (), timeout_s: float | None = None
    ) -> HumanAnswer:
        """Ask the owner something; see `Approvals.ask`."""
        call = build(AskHuman, text=text, choices=listed(choices), timeout_s=timeout_s)
        return self._gate.call(call).value

    def list(self, *, include_over: bool = False) -> tuple[Approval, ...]:
        """The questions that are open; see `Approvals.list`."""
        return self._gate.call(ApprovalList(all=include_over)).value.approvals

    def answer(self, number: int, answer: str) -> Approval:
        """Answer a question; see `Approvals.answer`."""
        return self._gate.call(build(ApprovalAnswer, id=number, answer=answer)).value

    def revoke(self, number: int) -> Approval:
        """Take an answer back; see `Approvals.revoke`."""
        return self._gate.call(build(ApprovalRevoke, id=number)).value
