"""The chat template of a model: a conversation in, the text that the model sees out.

A template is run once or twice at start with marked messages, to learn what it can do: whether it shows tools, whether it
takes system messages, whether it wants content in parts. What it cannot do is done for it before it is run.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from enum import Enum
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from aios.abi.counting import count_values
from aios.abi.types import ImagePart, Message, Role, ToolCall, ToolSpec
from aios.engine.base import ChatPrompt
from aios.engine.llama.jinja import MAX_ITEMS, Program
from aios.engine.llama.marks import starts_of
from aios.engine.llama.toolprompt import add_to_system, describe_tools, spell_out, tool_object
from aios.errors import InvalidCall, TooLarge, Unsupported

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FIXED_NOW: Final = datetime(2025, 1, 1, tzinfo=UTC)

_CUT: Final = "\ufdd0"  # a noncharacter: no text contains it by right
_MARK: Final = "mark7f3a"


class ToolMode(Enum):
    """How tools are shown to the model and how it writes a call."""

    NONE = "none"  # no tools in this prompt, or the choice is none
    FALLBACK = "fallback"  # the template knows no tools: our own system message, calls as HERMES
    HERMES = "hermes"  # <tool_call>{"name": ..., "arguments": {...}}</tool_call> (Qwen, Hermes)
    LLAMA3 = "llama3"  # bare {"name": ..., "parameters": {...}}
    MISTRAL = "mistral"  # [TOOL_CALLS][{"name": ..., "arguments": {...}}]


class Rendered(Struct, frozen=True):
    """A prompt as text.

    Each of `pieces` is to be tokenised on its own, special tokens included, and the ids joined: the text is cut inside
    whatever in a message looks like a control token, so that the content of a message cannot end its turn or begin
    another. With `has_bos` the text begins with the BOS token, and no other must be added.
    """

    pieces: tuple[str, ...]
    tool_mode: ToolMode
    has_bos: bool

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: The jinja2 source in the model file; empty means ChatML.
        bos: The text of the BOS token.
        eos: The text of the EOS token.
        control_tokens: Texts that are control tokens, which messages must not forge.
        clock: The date for templates that write one; fixed by default, so that runs repeat.

    Attributes:
        note: What a user should know about the template, or empty.
        native: The mode for prompts with tools.

    Raises:
        InvalidCall: The source is no template, or cannot even render one message.
    """

    def __init__(
        self,
        source: str,
        *,
        bos: str,
        eos: str,
        control_tokens: Collection[str] = (),
        clock: Callable[[], datetime] = lambda: FIXED_NOW,
    ) -> None:
        self._program = Program(source or CHATML, clock)
        self._bos, self._eos = bos, eos
        self._controls = starts_of(control_tokens)
        self.note = "" if source else "the model file has no chat template; ChatML is used"
        self._wants_parts = self._needs_parts()
        self._takes_system = self._shows(
            [{"role": "system", "content": self._content(_MARK)}, self._question()]
        )
        self.native = self._find_native(source)

    def render(self, prompt: ChatPrompt) -> Rendered:
        """The text of a conversation, ready for the assistant's answer.

        Raises:
            InvalidCall: The messages make no sense, or the template refuses them.
            TooLarge: The text is longer than any window, or the arguments of tool calls are more values than a template writes.
            Unsupported: A message has an image.
        """
        check_messages(prompt)
        mode = ToolMode.NONE
        messages: Sequence[Message] = prompt.messages
        tools: list[object] | None = None
        if prompt.tools and prompt.tool_choice.mode != "none":
            mode = self.native
        if self.native is ToolMode.FALLBACK:
            messages = spell_out(messages)
        else:
            _check_arguments(messages)
        if mode is ToolMode.FALLBACK:
            messages = add_to_system(messages, describe_tools(prompt.tools))
        elif mode is not ToolMode.NONE:
            tools = [tool_object(tool) for tool in prompt.tools]
        rows = [self._row(message) for message in self._adapt(messages)]
        text = self._run(self._guard(rows), self._guard(tools))
        return Rendered(
            tuple(text.split(_CUT)),
            tool_mode=mode,
            has_bos=bool(self._bos) and text.startswith(self._bos),
        )

    def _run(self, messages: object, tools: object = None) -> str:
        return self._program.render(
            {
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": True,
                "bos_token": self._bos,
                "eos_token": self._eos,
            }
        )

    def _adapt(self, messages: Sequence[Message]) -> list[Message]:
        """Bend the conversation to what the template takes."""
        out = list(messages)
        if self.native is ToolMode.LLAMA3:
            out = _one_call_each(out)
        if self.native is ToolMode.MISTRAL:
            out = [_with_short_ids(message) for message in out]
        if not self._takes_system:
            out = _system_to_user(out)
        return out

    def _row(self, message: Message) -> dict[str, object]:
        """A message as templates expect it: OpenAI's shape, but with arguments as an object."""
        row: dict[str, object] = {
            "role": message.role.value,
            "content": self._content(message.text()),
        }
        if message.name:
            row["name"] = message.name
        if message.tool_call_id:
            row["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            row["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _arguments(call)},
                }
                for call in message.tool_calls
            ]
        return row

    def _content(self, text: str) -> object:
        return [{"type": "text", "text": text}] if self._wants_parts else text

    def _guard(self, value: object) -> object:
        """The value with every text in it cut where it looks like a control token."""
        if isinstance(value, str):
            return self._controls.sub(_cut_behind, value.replace(_CUT, "\ufffd"))
        if isinstance(value, dict):
            return {self._guard(key): self._guard(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._guard(inner) for inner in value]
        return value

    def _question(self) -> dict[str, object]:
        return {"role": "user", "content": self._content("Hello")}

    def _needs_parts(self) -> bool:
        question: dict[str, object] = {"role": "user", "content": _MARK}
        if self._shows([question]):
            return False
        if self._shows([{**question, "content": [{"type": "text", "text": _MARK}]}]):
            return True
        self._run([question])  # tells why, if it raises
        raise InvalidCall("the model's chat template does not show the user's message")

    def _shows(self, messages: list[dict[str, object]], tools: object = None) -> bool:
        try:
            return _MARK in self._run(messages, tools)
        except InvalidCall:
            return False

    def _find_native(self, source: str) -> ToolMode:
        """How this template writes tools; FALLBACK also when it does so in a form that we cannot read."""
        tool = tool_object(ToolSpec(_MARK, "A tool", {"type": "object", "properties": {}}))
        if not self._shows([self._question()], [tool]):
            return ToolMode.FALLBACK
        for mode, signs, others in _SIGNS:
            if all(sign in source for sign in signs) and not any(sign in source for sign in others):
                return mode
        return ToolMode.FALLBACK


# What the source of a template contains if calls have this form, and what it contains if they only look so.
_SIGNS: Final = (
    (ToolMode.MISTRAL, ("[TOOL_CALLS]",), ("[ARGS]", "[CALL_ID]")),
    (ToolMode.HERMES, ("<tool_call>",), ("<function=", "<arg_key>")),
    (ToolMode.LLAMA3, ('"parameters": ', "ipython"), ("<function=",)),
)


def _cut_behind(found: re.Match[str]) -> str:
    """The character that was found, and a cut. A function: with a text instead, Python 3.12 lets nobody else run meanwhile."""
    return found[0] + _CUT


def check_messages(prompt: ChatPrompt) -> None:
    """Refuse a conversation that no model could make sense of.

    Raises:
        InvalidCall: There are no messages, a tool message answers no call before it, or a tool is chosen that is not there.
        Unsupported: A message has an image.
    """
    if not prompt.messages:
        raise InvalidCall("the conversation has no messages", hint="send at least one")
    _check_choice(prompt)
    open_calls: set[str] = set()
    for i, message in enumerate(prompt.messages):
        if not isinstance(message.content, str) and any(
            isinstance(part, ImagePart) for part in message.content
        ):
            raise Unsupported(
                f"message {i} has an image, and the embedded engine does not see",
                hint="send text, or use an endpoint whose model sees images",
            )
        if message.tool_calls and message.role is not Role.ASSISTANT:
            raise InvalidCall(
                f"message {i} has tool calls, but its role is {message.role.value}, not assistant"
            )
        open_calls.update(call.id for call in message.tool_calls)
        if message.role is Role.TOOL:
            if message.tool_call_id not in open_calls:
                raise InvalidCall(
                    f"message {i} answers the tool call `{message.tool_call_id}`, "
                    "which no assistant message before it made or which is answered already",
                    hint="keep each assistant message with tool calls, and answer each call once, after it",
                )
            open_calls.remove(message.tool_call_id)


def _check_choice(prompt: ChatPrompt) -> None:
    choice = prompt.tool_choice
    names = [tool.name for tool in prompt.tools]
    if choice.mode in ("required", "tool") and not names:
        raise InvalidCall(f"tool_choice is {choice.mode}, but no tools are given")
    if choice.mode == "tool" and choice.name not in names:
        raise InvalidCall(
            f"tool_choice names the tool `{choice.name}`, which is not among {', '.join(names)}"
        )


def _check_arguments(messages: Sequence[Message]) -> None:
    """Refuse arguments of millions of values before they are made: that takes gigabytes, and no other thread runs meanwhile."""
    texts = [call.arguments for message in messages for call in message.tool_calls]
    if sum(map(len, texts)) <= MAX_ITEMS:
        return
    if sum(count_values(text.encode("utf-8", "replace"), 0) for text in texts) > MAX_ITEMS:
        raise TooLarge(
            f"the arguments of the tool calls hold over {MAX_ITEMS} values",
            hint="leave old tool calls out of the conversation, with their results",
        )


def _arguments(call: ToolCall) -> object:
    """The arguments as the object that templates expect; what is no object stays text."""
    try:
        value: object = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return call.arguments
    return value if isinstance(value, dict) else call.arguments


def _system_to_user(messages: Sequence[Message]) -> list[Message]:
    """For templates without system messages: their text goes to the front of the next user's message."""
    out: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            waiting.append(message.text())
        elif waiting and message.role is Role.USER:
            out.append(Message(Role.USER, "\n\n".join([*waiting, message.text()])))
            waiting = []
        else:
            out.append(message)
    if waiting:
        out.append(Message(Role.USER, "\n\n".join(waiting)))
    return out


def _one_call_each(messages: Sequence[Message]) -> list[Message]:
    """For templates that refuse two calls in a message: each call becomes a message, followed by its result."""
    out: list[Message] = []
    waiting: dict[
        str, Message
    ] = {}  # calls of the last assistant message whose results have not come
    for message in messages:
        if message.role is Role.TOOL:
            if call := waiting.pop(message.tool_call_id, None):
                out.append(call)
            out.append(message)
            continue
        out.extend(waiting.values())
        waiting = {
            call.id: Message(Role.ASSISTANT, "" if i else message.text(), (call,))
            for i, call in enumerate(message.tool_calls)
        }
        if not waiting:
            out.append(message)
    return [*out, *waiting.values()]


def _with_short_ids(message: Message) -> Message:
    """Mistral's templates insist on call ids of nine letters and digits."""
    calls = tuple(
        ToolCall(_short(call.id), call.name, call.arguments) for call in message.tool_calls
    )
    answers = _short(message.tool_call_id) if message.tool_call_id else ""
    return Message(message.role, message.content, calls, answers, message.name)


def _short(call_id: str) -> str:
    return blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()[:9]
