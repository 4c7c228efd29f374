"""What the scripted engine says: canned replies, a function, or the default rule. Pure.

The default rule, for a conversation:
- With `tool_choice` `required` or `tool` it calls a tool: the named one, else the first. With `auto` it calls one for each
  `call NAME {json}` in the last message, if the user wrote that one. Arguments that the user did not give are made from
  the tool's schema.
- Under a constraint it writes a small value of the schema, or a text that matches the pattern.
- Else it quotes the last user message and goes on with made-up sentences, which depend on that message and, unless
  `temperature` is 0, on the seed.
"""

import json
import re
from collections.abc import Callable
from zlib import crc32

from msgspec import Struct

from aios.abi.types import Finish, JsonSchema, Role, ToolCall, ToolSpec
from aios.engine import pieces
from aios.engine.base import ChatPrompt, Job, TextPrompt
from aios.engine.example import example_of
from aios.engine.pattern import text_of_pattern
from aios.engine.text import TextAssembler
from aios.errors import InvalidCall

N_QUOTED_CHARS = 48
DEFAULT_TOKENS = 24
MAX_TOOL_CALLS = 32
BAN = -100.0

_ADJECTIVES = ("quiet", "small", "careful", "bright", "patient", "plain", "steady", "early")
_NOUNS = ("kernel", "page", "agent", "reader", "slot", "queue", "token", "journal")
_VERBS = ("opens", "reads", "keeps", "counts", "follows", "answers", "moves", "finds")
_TOKENS_A_SENTENCE = 7
_ASKED_CALL = re.compile(r"\bcall ([A-Za-z0-9_.-]{1,128}) (?=\{)")
_decode_json = json.JSONDecoder().raw_decode


class Reply(Struct, frozen=True):
    """One scripted answer.

    `fail_after_tokens` n: the engine breaks (`EngineFailed`) once n tokens were read, 0 at the first read.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    fail_after_tokens: int | None = None


class Script(Struct, frozen=True):
    """What the engine says and how fast.

    Args:
        replies: Said in this order, one for each new sequence; after the last one `answer` or the default rule holds.
        answer: Makes the reply to a job; must be pure if the engine is to stay so.
        answer_tokens: Length of a default answer in tokens; 0 leaves it at a few sentences.
        token_delay_s: Time from one token to the next. With 0 every token is there at once.
        prompt_token_delay_s: Time that each token of the prompt takes before the first token of the answer.
        fail_after_tokens: As in `Reply`, for every answer that does not say otherwise.
    """

    replies: tuple[str | Reply, ...] = ()
    answer: Callable[[Job], str | Reply] | None = None
    answer_tokens: int = 0
    token_delay_s: float = 0.0
    prompt_token_delay_s: float = 0.0
    fail_after_tokens: int | None = None


class Plan(Struct, frozen=True):
    """All that a sequence will ever say, known from the start.

    `pieces` are the sampled tokens; `texts` is what becomes visible with each: less than the piece where a stop string
    or a tool call takes it. The first `n_rows` tokens show their log-probabilities.
    """

    pieces: tuple[str, ...]
    texts: tuple[str, ...]
    n_rows: int
    tool_calls: tuple[ToolCall, ...]
    finish: Finish
    n_prompt: int
    fail_after_tokens: int | None


def plan_of(reply: Reply, job: Job, *, n_max: int, n_wanted: int | None, n_prompt: int) -> Plan:
    """Apply the limits of a job to what is to be said.

    Args:
        reply: What is to be said.
        job: Whose stop strings and biases hold.
        n_max: The most tokens there may be; an answer that needs as many ends by `LENGTH`.
        n_wanted: Where an answer ends by itself; None for where its text ends.
        n_prompt: Tokens of the prompt.
    """
    said = pieces.split(reply.text)
    if job.sampling.logit_bias and job.constraint is None:
        banned = {token for token, bias in job.sampling.logit_bias.items() if bias <= BAN}
        said = [piece for piece in said if pieces.piece_id(piece) not in banned]
    said = said[:n_wanted]
    hidden = pieces.split(text_of_calls(reply.tool_calls)) if reply.tool_calls else []
    n_needed = len(said) + len(hidden)
    calls, finish = reply.tool_calls, Finish.TOOL_CALLS if hidden else Finish.STOP
    if n_needed > n_max or (n_needed == n_max and not hidden and job.constraint is None):
        calls, finish = (), Finish.LENGTH
    said = said[:n_max]
    texts = said
    if job.stop:
        texts, is_stopped = _stopped(said, job.stop)
        if is_stopped:
            said, hidden, calls, finish = said[: len(texts)], [], (), Finish.STOP
    hidden = hidden[: n_max - len(said)]
    return Plan(
        pieces=(*said, *hidden),
        texts=(*texts, *("" for _ in hidden)),
        n_rows=len(said) if texts is said else _n_whole(said, texts),
        tool_calls=calls,
        finish=finish,
        n_prompt=n_prompt,
        fail_after_tokens=reply.fail_after_tokens,
    )


def _stopped(said: list[str], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    """What becomes visible with each token, up to the one that completes a stop string."""
    assembler = TextAssembler(stop)
    texts: list[str] = []
    for piece in said:
        texts.append(assembler.feed(piece.encode("utf-8", "replace")))
        if assembler.stopped:
            return texts, True
    if texts:
        texts[-1] += assembler.flush()
    return texts, False


def _n_whole(said: list[str], texts: list[str]) -> int:
    """How many tokens are wholly visible in the end."""
    n_visible = sum(map(len, texts))
    n_chars = 0
    for i, piece in enumerate(said):
        n_chars += len(piece)
        if n_chars > n_visible:
            return i
    return len(said)


def default_reply(job: Job, *, n_tokens: int = 0) -> Reply:
    """The answer by the default rule, before `max_tokens`, stop strings and biases.

    Raises:
        InvalidCall: The job's tool choice names no tool of it, or its schema or pattern is malformed.
        Unsupported: Its schema or pattern is not simple enough.
    """
    seed = 0 if job.sampling.temperature == 0 else (job.sampling.seed or 0)
    if isinstance(job.prompt, TextPrompt):
        asked = job.prompt.text
    else:
        asked = _last_words(job.prompt)
        calls = _tool_calls(job.prompt, asked, seed)
        if calls:
            return Reply(tool_calls=calls)
    if isinstance(job.constraint, JsonSchema):
        value = example_of(job.constraint.schema, seed=crc32(_bytes(asked)) ^ seed)
        return Reply(_compact(value))
    if job.constraint is not None:
        return Reply(text_of_pattern(job.constraint.pattern))
    return Reply(_prose(asked, seed, n_tokens or DEFAULT_TOKENS))


def text_of_calls(calls: tuple[ToolCall, ...]) -> str:
    """What a model would have written to make these calls; it is what their tokens are counted by."""
    return "".join(f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in calls)


def _last_words(prompt: ChatPrompt) -> str:
    """The text of the last message that is not the assistant's."""
    for message in reversed(prompt.messages):
        if message.role is Role.USER or message.role is Role.TOOL:
            return message.text()
    return ""


def _prose(asked: str, seed: int, n_tokens: int) -> str:
    quoted = " ".join(asked[: 4 * N_QUOTED_CHARS].split())[:N_QUOTED_CHARS]
    if not quoted.isascii():
        quoted = quoted.encode(
            "utf-8", "replace"
        ).decode()  # a lone surrogate must not come back out
    state = crc32(_bytes(asked)) ^ (seed * 0x9E3779B1 & 0xFFFFFFFF)
    sentences = [f"You said: {quoted}." if quoted else "You said nothing."]
    for _ in range(n_tokens // _TOKENS_A_SENTENCE + 1):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        adjective, noun = _ADJECTIVES[state >> 29], _NOUNS[state >> 26 & 7]
        verb, other = _VERBS[state >> 23 & 7], _NOUNS[state >> 20 & 7]
        sentences.append(f"The {adjective} {noun} {verb} the {other}.")
    return " ".join(sentences)


def _tool_calls(prompt: ChatPrompt, asked: str, seed: int) -> tuple[ToolCall, ...]:
    choice = prompt.tool_choice
    if choice.mode == "none" or (choice.mode == "auto" and not prompt.tools):
        return ()
    by_name = {tool.name: tool for tool in prompt.tools}
    salt = crc32(_bytes(asked), seed & 0xFFFFFFFF)
    written = [(name, arguments) for name, arguments in _asked_calls(asked) if name in by_name]
    if choice.mode == "auto":
        is_asked = prompt.messages[-1].role is Role.USER
        return tuple(_call(*pair, salt + i) for i, pair in enumerate(written)) if is_asked else ()
    tool = by_name.get(choice.name) if choice.mode == "tool" else next(iter(prompt.tools), None)
    if tool is None:
        raise InvalidCall(
            f"no tool `{choice.name}` among {sorted(by_name)}",
            hint="give the tool that `tool_choice` asks for",
        )
    if choice.mode == "tool":
        written = [pair for pair in written if pair[0] == choice.name]
    if written:
        return tuple(_call(*pair, salt + i) for i, pair in enumerate(written))
    return (_call(tool.name, _made_arguments(tool, salt), salt),)


def _asked_calls(asked: str) -> list[tuple[str, str]]:
    """Every `call NAME {json}` of a text."""
    if "call " not in asked:
        return []
    found: list[tuple[str, str]] = []
    for match in _ASKED_CALL.finditer(asked):
        try:
            _, end = _decode_json(asked, match.end())
        except (ValueError, RecursionError):
            continue
        found.append((match.group(1), asked[match.end() : end]))
        if len(found) == MAX_TOOL_CALLS:
            break
    return found


def _made_arguments(tool: ToolSpec, seed: int) -> str:
    made = example_of(tool.parameters, seed=seed)
    return _compact(made) if isinstance(made, dict) else "{}"


def _call(name: str, arguments: str, salt: int) -> ToolCall:
    return ToolCall(f"call_{salt & 0xFFFFFFFF:08x}", name, arguments)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
