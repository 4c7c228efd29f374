"""A conversation in a context of the kernel's, and beside it what must be in it: no text of it is lost, and none comes twice."""

from functools import partial
from typing import TYPE_CHECKING

from aios.sdk.contexts import Context
from aios.testing.agents import Agent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aios.sdk.replies import ChatReply


class Talk:
    """The context of an agent, opened when it is first needed."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._context: Context | None = None
        self._texts: list[str] = []

    async def append(self, text: str) -> bool:
        """Add to it."""
        context = await self._opened()
        if context is None or not await self._agent.told("append", partial(context.append, text)):
            return False
        self._texts.append(text)
        return await self._is_whole(context, self._texts)

    async def chat(self, text: str) -> bool:
        """Let the model answer in it; both texts are kept, or neither."""
        context = await self._opened()
        if context is None:
            return False
        ask: Callable[[], Awaitable[ChatReply[object]]] = partial(context.chat, text, max_tokens=8)
        reply, is_well = await self._agent.asked("talk", ask)
        if reply is not None:
            self._texts += [text, reply.text]
        return await self._is_whole(context, self._texts) and is_well

    async def fork(self, text: str) -> bool:
        """Go another way in a second one; the first is as it was."""
        context = await self._opened()
        if context is None:
            return False
        other, _ = await self._agent.asked("context fork", context.fork)
        if other is None:
            return False
        is_well = await self._agent.told("append", partial(other.append, text))
        await self._is_whole(other, [*self._texts, *[text] * is_well])
        await self._agent.told("close", other.close)
        return await self._is_whole(context, self._texts) and is_well

    async def keep(self) -> bool:
        """Put it on disk under a name that nobody else has, and read it back."""
        agent, context = self._agent, await self._opened()
        name, _ = await agent.asked("name", agent.client.repeatable.uuid)
        if context is None or name is None:
            return False
        if not await agent.told("snapshot", partial(context.snapshot, str(name))):
            if agent.code == "conflict":
                agent.broken("a name that nobody else knows was taken")
            return False
        restore = partial(agent.client.contexts.restore, str(name))
        back, _ = await agent.asked("restore", restore)
        if back is None:
            if agent.code == "not_found":
                agent.broken("a snapshot that was acknowledged is not there")
            return False
        is_well = await self._is_whole(back, self._texts)
        await agent.told("close", back.close)
        return is_well

    async def _opened(self) -> Context | None:
        if self._context is None:
            self._context, _ = await self._agent.asked("open", self._agent.client.contexts.open)
        return self._context

    async def _is_whole(self, context: Context, texts: list[str]) -> bool:
        """Compare what is in a context with what must be. Returns: whether it could be read."""
        messages, _ = await self._agent.asked("messages", context.messages)
        if messages is None:
            return False
        found = [message.text() for message in messages]
        if found != texts:
            self._agent.broken(f"its context holds {found}, and must hold {texts}")
        return True
