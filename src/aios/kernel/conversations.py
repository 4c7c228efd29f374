"""Chats in a context: where the context manager and the model calls meet.

A chat in a context is a transaction. It holds the context as its one writer, shows the model what is kept and what is new,
and commits the new messages, the answer and any compaction together when the answer is whole. Whatever ends it before, a kill,
a deadline, a broken engine, leaves the context as it was.
"""

from collections.abc import Sequence
from functools import reduce

import msgspec

from aios.abi.calls import Chat, ChatAnswer
from aios.abi.contexts import Compacted, Compaction, ContextCompact, WindowPolicy
from aios.abi.types import Message, Role
from aios.engine.abilities import needed_abilities
from aios.engine.base import ChatPrompt, Job
from aios.errors import Conflict, ContextWindowExceeded
from aios.kernel.compaction import Aim, Compactor
from aios.kernel.context.contexts import Context, ContextTable, cut_of
from aios.kernel.context.transcript import (
    Items,
    Rewrite,
    Transcript,
    as_kept,
    as_spoken,
    check_answerable,
    extended,
    new_item,
    next_number,
)
from aios.kernel.context.window import cut_again, shown
from aios.kernel.llm import ModelCalls, job_of
from aios.kernel.process import Run


class Conversations:
    """The handlers of the calls that take a context and a model."""

    def __init__(self, models: ModelCalls, contexts: ContextTable, compactor: Compactor) -> None:
        self._models = models
        self._contexts = contexts
        self._compactor = compactor

    async def chat(self, run: Run, call: Chat) -> ChatAnswer:
        """Write the next message of a conversation, and keep it if that is one of the kernel's."""
        if call.context is None:
            return await self._models.chat(run, _instructed(run, call))
        with self._contexts.writing(run, call.context) as context:
            run.context_homes = context.homes
            before = context.transcript
            items = extended(before.items, call.messages)
            check_answerable(items)
            draft = self._contexts.drafted(context, items)
            answer, draft = await self._answered(run, context, draft, call=call)
            message = as_spoken(answer.message)
            draft = draft.put(_answered_by(draft.items, message))
            made = _made(before, draft)
            self._commit(context, draft, made)
            context.pages = run.pages
            context.n_tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens
        return msgspec.structs.replace(answer, message=message, cuts=tuple(map(cut_of, made)))

    def keep(self, run: Run, call: Chat, answer: ChatAnswer) -> None:
        """Put a chat that was answered before into its context, without a model."""
        if call.context is None:
            return
        with self._contexts.writing(run, call.context) as context:
            draft = context.transcript.put(extended(context.items, call.messages))
            draft = reduce(cut_again, answer.cuts, draft)
            draft = draft.put(_answered_by(draft.items, answer.message))
            self._contexts.commit(context, draft, is_given=True)
            context.n_tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens

    async def compact(self, run: Run, call: ContextCompact) -> Compacted:
        """Make a context shorter."""
        with self._contexts.writing(run, call.context) as context:
            policy = call.window or context.window
            if policy is WindowPolicy.NONE:
                policy = WindowPolicy.DROP_OLDEST
            before = context.transcript
            job = Job(ChatPrompt(shown(before.items), context.tools))
            aim = Aim(
                policy,
                context.model,
                context.tools,
                call.target_tokens,
                needs=needed_abilities(job),
            )
            after = await self._compactor.compact(run, before, aim)
            if after is before:
                return Compacted(Compaction(policy.value, 0, 0, 0, False, 0.0))
            self._commit(context, after, _made(before, after))
            context.forget_rows()
        cut = cut_of(after.rewrites[-1])
        return Compacted(cut.compaction, cut.pointer, cut)

    async def compact_again(self, run: Run, call: ContextCompact, told: Compacted) -> None:
        """Let the same leave a context that left it before, without a model.

        Raises:
            Conflict: The answer of then does not say what that was.
        """
        if told.cut is None:
            n_messages = told.compaction.n_messages
            if n_messages:
                raise Conflict(
                    f"an earlier version of AIOS wrote down that {n_messages} messages left the window, not which",
                    hint="compact it again",
                )
            return
        with self._contexts.writing(run, call.context) as context:
            again = cut_again(context.transcript, told.cut)
            self._contexts.commit(context, again, is_given=True)
            context.forget_rows()

    async def _answered(
        self, run: Run, context: Context, draft: Transcript, *, call: Chat
    ) -> tuple[ChatAnswer, Transcript]:
        """The model's answer, and the transcript that it answers: compacted if it did not fit."""
        model, tools = call.model or context.model, call.tools or context.tools
        aim = Aim(context.window, model, tools, may_move=call.may_move)
        aim = _needing(aim, _shown(draft, aim, call))
        draft = await self._compactor.fit(run, draft, aim, max_tokens=call.max_tokens)
        asked = _shown(draft, aim, call)
        try:
            return await self._models.chat(run, _instructed(run, asked)), draft
        except ContextWindowExceeded:
            if aim.policy is WindowPolicy.NONE:
                raise
            # An engine that cannot count, or tells no window, says so only now; nothing of an answer has come yet.
            shorter = await self._compactor.shorten(run, draft, _needing(aim, asked))
            if shorter is draft:
                raise
        return await self._models.chat(run, _instructed(run, _shown(shorter, aim, call))), shorter

    def _commit(self, context: Context, after: Transcript, made: Sequence[Rewrite]) -> None:
        """Commit a transcript, and write into its owner's log what left the window."""
        self._contexts.commit(context, after, is_given=True)
        for rewrite in made:
            self._contexts.note(context, rewrite)


def _answered_by(items: Items, message: Message) -> Items:
    """The conversation with a model's answer, whatever that is: it was given, and is not refused now."""
    return (*items, new_item(as_kept(message), number=next_number(items)))


def _made(before: Transcript, after: Transcript) -> list[Rewrite]:
    """The compactions of a transcript that were made since. The oldest may be forgotten, so they are told by themselves."""
    old = {id(each) for each in before.rewrites}
    return [each for each in after.rewrites if id(each) not in old]


def _instructed(run: Run, call: Chat) -> Chat:
    """The call with the instruction that its fork was given, at its end: the rows of what is before it stay of use."""
    if not run.process.instruction:
        return call
    said = Message(Role.USER, run.process.instruction)
    return msgspec.structs.replace(call, messages=(*call.messages, said))


def _needing(aim: Aim, asked: Chat) -> Aim:
    """The aim with what this call needs: what has left the window needs nothing any more."""
    return msgspec.structs.replace(aim, needs=needed_abilities(job_of(asked)))


def _shown(transcript: Transcript, aim: Aim, call: Chat) -> Chat:
    """The call as the model is to see it."""
    return msgspec.structs.replace(
        call,
        messages=shown(transcript.items),
        tools=aim.tools,
        model=aim.model,
        context=None,
    )
