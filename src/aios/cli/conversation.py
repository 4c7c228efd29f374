"""A conversation with a model, as `chat` keeps it. Pure."""

from dataclasses import dataclass, field

from aios.abi.calls import Chat
from aios.abi.types import JsonObject, Message, Role
from aios.sdk.requests import ChatOptions, chat_call


@dataclass
class Conversation:
    """The messages so far. A question whose answer failed is not among them.

    Args:
        options: How answers are made.
        schema: What answers must match, or None.
        system: The system prompt, or nothing.
    """

    options: ChatOptions
    schema: JsonObject | None = None
    system: str = ""
    _turns: list[Message] = field(default_factory=list)

    def ask(self, question: str) -> Chat:
        """The call that asks for the answer to a question."""
        system = (Message(Role.SYSTEM, self.system),) if self.system else ()
        messages = (*system, *self._turns, Message(Role.USER, question))
        return chat_call(messages, self.schema, **self.options)

    def keep(self, question: str, answer: str) -> None:
        """Both belong to the conversation from now on; an answer that was broken off as far as it came."""
        self._turns += [Message(Role.USER, question), Message(Role.ASSISTANT, answer)]

    def reset(self) -> None:
        """Forget all but the system prompt."""
        self._turns.clear()

    @property
    def n_answers(self) -> int:
        """Questions that have been answered."""
        return len(self._turns) // 2
