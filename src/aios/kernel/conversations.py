"""Chats in a context: where the context manager and the model calls meet.

A chat in a context is a transaction. It holds the context as its one writer, shows the model what is kept and what is new,
and commits both the new messages and the answer when the answer is whole. Whatever ends it before, a kill, a deadline, a
broken engine, leaves the context as it was.
"""

import msgspec

from aios.abi.calls import Chat, ChatAnswer
from aios.kernel.context.contexts import Context, ContextTable
from aios.kernel.context.transcript import (
    Item,
    Items,
    as_kept,
    as_spoken,
    check_answerable,
    extended,
)
from aios.kernel.llm import ModelCalls
from aios.kernel.process import Run


class Conversations:
    """The handler of chats, in a context or without one."""

    def __init__(self, models: ModelCalls, contexts: ContextTable) -> None:
        self._models = models
        self._contexts = contexts

    async def chat(self, run: Run, call: Chat) -> ChatAnswer:
        """Write the next message of a conversation, and keep it if that is one of the kernel's."""
        if call.context is None:
            return await self._models.chat(run, call)
        with self._contexts.writing(run, call.context) as context:
            items = extended(context.items, call.messages)
            check_answerable(items)
            self._contexts.check_room(items, n_more=1)
            answer = await self._models.chat(run, _shown(context, items, call))
            message = as_spoken(answer.message)
            self._contexts.commit(context, (*items, Item(as_kept(message))))
            context.n_tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens
        return msgspec.structs.replace(answer, message=message)


def _shown(context: Context, items: Items, call: Chat) -> Chat:
    """The call as the model is to see it."""
    return msgspec.structs.replace(
        call,
        messages=tuple(item.message for item in items),
        tools=call.tools or context.tools,
        model=call.model or context.model,
        context=None,
    )
