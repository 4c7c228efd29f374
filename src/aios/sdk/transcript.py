"""An agent's conversation as a transaction: at every moment it is one that any model takes. Pure.

A task and the turns that answer it come in whole: an assistant message that calls tools is added together with one result
for each call, in the order of the calls. So there is no moment at which a cancel could leave a call without its result.
"""

from collections.abc import Sequence
from itertools import count

import msgspec

from aios.abi.types import Message, Role, ToolCall
from aios.sdk.tools import ToolOutcome

INTERRUPTED = ToolOutcome(
    "error: interrupted before it ended; it may or may not have taken effect", is_error=True
)
UNNAMED = "unnamed"
EMPTY_OBJECT = "{}"


class Transcript:
    """The messages of one agent.

    Args:
        instructions: The system message; none when empty.
    """

    def __init__(self, instructions: str = "") -> None:
        self._messages = [Message(Role.SYSTEM, instructions)] if instructions else []
        self._task: Message | None = None
        self._n_before = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that is settled."""
        return tuple(self._messages)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What the model is shown: all that is settled, and the task while nothing answered it yet."""
        return (*self._messages, self._task) if self._task else tuple(self._messages)

    @property
    def news(self) -> tuple[Message, ...]:
        """What was settled since `begin`."""
        return tuple(self._messages[self._n_before :])

    def begin(self, task: Message) -> None:
        """Take on a task. It is settled with the first turn that answers it; until then it can be given up."""
        self._task = task
        self._n_before = len(self._messages)

    def tell(self, messages: Sequence[Message]) -> None:
        """Add what came from outside between two turns; it stands before a task that nothing has answered yet."""
        self._messages += messages

    def give_up(self) -> None:
        """Forget a task that no turn has answered."""
        self._task = None

    def commit(self, message: Message, outcomes: Sequence[ToolOutcome | None]) -> None:
        """Settle a turn: the model's message and what became of its calls; None stands for one that was interrupted.

        `message` must be one that `sanitized` returned, with as many calls as there are outcomes.
        """
        results = [
            Message(Role.TOOL, (outcome or INTERRUPTED).text, tool_call_id=call.id, name=call.name)
            for call, outcome in zip(message.tool_calls, outcomes, strict=True)
        ]
        task, self._task = self._task, None
        self._messages += [*([task] if task else []), message, *results]

    def check_invariants(self) -> None:
        """Raise AssertionError if a model could not be shown this conversation."""
        open_calls: list[str] = []
        for i, message in enumerate(self._messages):
            assert message.role is not Role.SYSTEM or i == 0, "instructions in mid-conversation"
            if message.role is Role.TOOL:
                assert open_calls, "a result without a call"
                assert message.tool_call_id == open_calls.pop(0), "a result out of order"
                continue
            assert not open_calls, "a call without a result"
            assert not message.tool_calls or message.role is Role.ASSISTANT
            open_calls = [call.id for call in message.tool_calls]
            assert len(set(open_calls)) == len(open_calls), "two calls with one id"
            assert all(is_json_object(call.arguments) for call in message.tool_calls)
        assert not open_calls, "a call without a result"


def sanitized(message: Message) -> Message:
    """A model's message as it may stand in a transcript: every call has an id of its own, a name, and a JSON object.

    Endpoints refuse a whole conversation for one call whose arguments are no JSON, so those become `{}` here; the tool's
    result tells the model what it wrote.
    """
    taken: set[str] = {call.id for call in message.tool_calls}
    seen: set[str] = set()
    calls = []
    for call in message.tool_calls:
        call_id = call.id
        if not call_id or call_id in seen:
            call_id = next(name for i in count(1) if (name := f"call_{i}") not in taken)
        taken.add(call_id)
        seen.add(call_id)
        arguments = call.arguments if is_json_object(call.arguments) else EMPTY_OBJECT
        calls.append(ToolCall(call_id, call.name or UNNAMED, arguments))
    return msgspec.structs.replace(message, role=Role.ASSISTANT, tool_calls=tuple(calls))


def is_json_object(text: str) -> bool:
    """Whether a text is one JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (ValueError, RecursionError):
        return False
