"""What ties an agent to a context: its conversation lives in the kernel, and each thought sends only what is new there."""

from collections.abc import Sequence

from aios.abi.types import Message, Role
from aios.sdk.contexts import Context
from aios.sdk.invoke import AnyTool
from aios.sdk.tools import tool
from aios.sdk.transcript import INTERRUPTED


class Tether:
    """Keeps a context in step with the transcript of the one agent that speaks in it.

    The first `n_sent` messages of the transcript's prompt are in the context.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.is_empty = True
        """Whether the context held nothing when the last run began."""
        self._n_sent = 0

    async def begin(self, settled: Sequence[Message]) -> None:
        """Before a run: answer the calls that a run which was cut short has left open, add the letters that it was told, and see what the context holds.

        A context that holds anything has its own instructions: the agent's go only into an empty one.
        """
        info = await self.context.stat()
        unsent = settled[self._n_sent :]
        results = {m.tool_call_id: m for m in unsent if m.role is Role.TOOL}
        news = [results.get(call_id) or _interrupted(call_id) for call_id in info.unanswered]
        if info.n_messages:
            news += [m for m in unsent if m.role is Role.USER]
        if news:
            await self.context.append(news)
        self.is_empty = not info.n_messages
        self._n_sent = 0 if self.is_empty else len(settled)

    def news(self, prompt: Sequence[Message]) -> tuple[Message, ...]:
        """What of a prompt the context does not hold yet."""
        return tuple(prompt[self._n_sent :])

    def note_answered(self, prompt: Sequence[Message]) -> None:
        """The context holds the prompt now, and the answer to it."""
        self._n_sent = len(prompt) + 1

    async def deliver(self, settled: Sequence[Message]) -> None:
        """Add what no thought will carry, because it was the last one."""
        await self.context.append(self.news(settled))
        self._n_sent = len(settled)


def fault_tool(context: Context) -> AnyTool:
    """A tool with which a model reads back what was paged out of its context (`window="page-to-memory"`)."""

    @tool
    async def context_fault(pointer: int) -> str:
        """Read back earlier messages that have left this window.

        Args:
            pointer: The number in the note that stands for them.
        """
        messages = await context.fault(pointer)
        return "\n".join(f"{message.role.value}: {message.text()}" for message in messages)

    return context_fault


def _interrupted(call_id: str) -> Message:
    return Message(Role.TOOL, INTERRUPTED.text, tool_call_id=call_id)
