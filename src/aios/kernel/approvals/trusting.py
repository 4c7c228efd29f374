"""Asking whether an MCP server is what its owner trusts: a call of it waits, whoever makes it, for one answer."""

from collections.abc import Awaitable, Callable

from aios.abi.approvals import DENY, MCP_TRUST, ONCE, ApprovalState
from aios.errors import ApprovalDenied, ApprovalExpired
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.approvals.asked import Asked
from aios.kernel.process import INIT_PID, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.tools.mcp.doubt import Doubt

ANSWERED_YES = frozenset({ApprovalState.ALLOWED, ApprovalState.USED})


class Trusting:
    """The questions about servers. They are init's: the answer is for all who call the server."""

    def __init__(self, approvals: Approvals, table: ProcessTable) -> None:
        """Make it."""
        self._approvals = approvals
        self._table = table

    async def ask(self, run: Run, doubt: Doubt, accept: Callable[[], Awaitable[None]]) -> None:
        """Wait for the owner's word about a server, which may have come by another way; at a yes, `accept` it.

        The owner's own calls do not wait for himself: he is told what to do.

        Raises:
            ApprovalDenied: It is no.
            ApprovalExpired: Nobody answered in time.
        """
        if run.process.pid == INIT_PID:
            return
        server = _resource(doubt.server)
        asked = Asked(
            MCP_TRUST,
            server,
            doubt.digest,
            f"{run.process.name} ({run.process.pid}) calls {doubt.server}: {doubt.why}",
            doubt.shown,
            "irreversible",
            choices=(ONCE, DENY),
        )
        found = await self._approvals.inquire(self._table.get(INIT_PID), asked)
        if found.state is ApprovalState.OPEN:
            found = await self._approvals.wait(run, found.id)
        if found.state is ApprovalState.DENIED:
            raise ApprovalDenied(
                f"{server} is not what its owner trusts: {found.by} said no (question {found.id})",
                hint=f"do without it; the owner can still say yes: `aios mcp trust {doubt.server}`",
            )
        if found.state is ApprovalState.EXPIRED:
            raise ApprovalExpired(
                f"{server} is not what its owner trusts: nobody answered question {found.id} in time",
                hint=f"do without it; its owner looks at it and runs `aios mcp trust {doubt.server}`",
            )
        if found.state in ANSWERED_YES:
            await accept()
        if found.state is ApprovalState.ALLOWED and self._approvals.get(found.id) is found:
            self._approvals.take(found)

    def settle(self, server: str, digest: str, *, by: str) -> None:
        """The owner has said yes himself, to the server as it has this digest: those who wait go on."""
        for question in self._approvals.open_about(INIT_PID, MCP_TRUST, _resource(server)):
            if question.digest == digest:
                self._approvals.answer_elsewhere(question, ONCE, by=by)
            else:  # it is another server by now
                self._approvals.withdraw(question.id)


def _resource(server: str) -> str:
    return f"MCP server {server}"
