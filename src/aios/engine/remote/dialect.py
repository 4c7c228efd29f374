"""How a request is put for one endpoint: what kind of server it is, and what it turned out not to take.

OpenAI's API has many servers and each has fields of its own. What a server is, its model list tells (`owned_by`). Fields
that an endpoint refuses by name are left out from then on, if the answer stays what was asked for without them and it takes
the request then; the engine's note says which.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import blake2b

from aios.abi.types import (
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Regex,
    Role,
    Sampling,
    TextPart,
    ToolChoice,
    ToolSpec,
)
from aios.engine.base import Ability, ChatPrompt, Job, TextPrompt
from aios.engine.remote.problems import Problem
from aios.errors import Unsupported

TEXT_TOKENS = 1024
"""Length of a completion for which nobody named one: without a number servers stop at 16."""

_STANDARD = frozenset({
    Ability.CHAT, Ability.COMPLETE, Ability.EMBED, Ability.TOOLS, Ability.JSON_SCHEMA, Ability.LOGPROBS,
    Ability.LOGIT_BIAS, Ability.IMAGES,
})  # fmt: skip
_NOT_NEEDED = (
    "stream_options", "prompt_cache_key", "top_k", "min_p", "repetition_penalty", "repeat_penalty", "seed", "top_p",
    "temperature", "frequency_penalty", "presence_penalty",
)  # fmt: skip
_REFUSED = re.compile(
    r"unrecogni[sz]ed|unsupported|not (?:yet )?supported|does not support|unknown|unexpected|extra|not permitted|not allowed"
    r"|additional propert",
    re.IGNORECASE,
)


_SCHEMA_FIELDS: dict[str, Callable[[JsonObject], JsonObject]] = {
    "structured_outputs": lambda schema: {"structured_outputs": {"json": schema}},
    "guided_regex": lambda schema: {"guided_json": schema},
}
"""Where a JSON schema goes in a text completion, by where a regular expression goes."""


class Flavour(Enum):
    """A kind of server."""

    OPENAI = "openai"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA_SERVER = "llama-server"
    OLLAMA = "ollama"
    AIOS = "aios"
    UNKNOWN = "unknown"


_OWNERS = {
    "openai": Flavour.OPENAI,
    "openai-internal": Flavour.OPENAI,
    "system": Flavour.OPENAI,
    "vllm": Flavour.VLLM,
    "sglang": Flavour.SGLANG,
    "llamacpp": Flavour.LLAMA_SERVER,
    "library": Flavour.OLLAMA,
    "aios": Flavour.AIOS,
}


def flavour_of(owned_by: str) -> Flavour:
    """The kind of server from the `owned_by` of a model that it serves."""
    return _OWNERS.get(owned_by.lower(), Flavour.UNKNOWN)


def usual_abilities(flavour: Flavour, regex_field: str) -> frozenset[Ability]:
    """What such a server can do, as far as one may know beforehand."""
    abilities = set(_STANDARD)
    if flavour is Flavour.OLLAMA:  # takes the field and does nothing with it
        abilities.discard(Ability.LOGIT_BIAS)
    if regex_field:
        abilities.add(Ability.REGEX)
    if flavour in {Flavour.VLLM, Flavour.LLAMA_SERVER}:
        abilities.add(Ability.TOKENIZE)
    return frozenset(abilities)


class GoingOn(Enum):
    """How an endpoint is made to go on from a message of the assistant's that is already begun."""

    NO = "no"
    FIELDS = "fields"  # by `continue_final_message`, as vLLM and transformers have it
    TRAILING = "trailing"  # the last message is the assistant's, as llama-server has it


@dataclass
class Dialect:
    """What is known about the fields of one endpoint.

    A request is put by a `copy`, which grows wiser by `mend`. Only if the endpoint takes it then, all `learn` it: a refusal
    may name a field for nothing, as one of a schema does that has a property of that name.

    `regex_field` is where a regular expression goes; empty if nowhere.
    """

    flavour: Flavour = Flavour.UNKNOWN
    regex_field: str = ""
    going_on: GoingOn = GoingOn.NO
    max_tokens_field: str = "max_tokens"
    dropped: set[str] = field(default_factory=set)

    @property
    def seed_mask(self) -> int:
        """Other servers keep seeds in 32 bits, some of them signed; the same seed still gives the same request."""
        return (1 << 63) - 1 if self.flavour is Flavour.AIOS else (1 << 31) - 1

    def copy(self) -> "Dialect":
        """The same, for one request."""
        return replace(self, dropped=set(self.dropped))

    def learn(self, other: "Dialect") -> None:
        """Take over what a request was put by that the endpoint took."""
        self.dropped |= other.dropped
        self.max_tokens_field = other.max_tokens_field

    def mend(self, problem: Problem, body: JsonObject) -> bool:
        """Learn from a refusal which field to leave out or rename; False if it names none."""
        if problem.status not in {400, 422} or problem.is_about_window:
            return False
        said = f"{problem.param} {problem.message}"
        # Completions of a text have one name for it, so there another one helps nothing.
        is_chat = "messages" in body
        if is_chat and "max_tokens" in body and "max_completion_tokens" in said:
            self.max_tokens_field = "max_completion_tokens"
            return True
        if not _REFUSED.search(f"{problem.code} {said}"):
            return False
        if "max_completion_tokens" in body and "max_completion_tokens" in said:
            self.max_tokens_field = "max_tokens"
            return True
        for name in _NOT_NEEDED:
            if name in body and name not in self.dropped and re.search(rf"\b{name}\b", said):
                self.dropped.add(name)
                return True
        return False

    def chat_body(self, job: Job, prompt: ChatPrompt, *, model: str, said: str = "") -> JsonObject:
        """A request to /chat/completions; `said` is what the assistant has said of this message already.

        Raises:
            Unsupported: The job asks for what no field of this server can carry.
        """
        messages = [message_json(message) for message in prompt.messages]
        body: JsonObject = {"model": model, "messages": messages}
        if said:
            messages.append({"role": "assistant", "content": said})
            if self.going_on is GoingOn.FIELDS:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        if prompt.tools:
            body["tools"] = [tool_json(tool) for tool in prompt.tools]
            body["tool_choice"] = choice_json(prompt.tool_choice)
        if job.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self._n_top(job.top_logprobs)}
        if isinstance(job.constraint, JsonSchema):
            body["response_format"] = format_json(job.constraint)
        if self.flavour is Flavour.OPENAI:
            first = prompt.messages[0].text() if prompt.messages else ""
            body["prompt_cache_key"] = blake2b(
                first.encode("utf-8", "replace"), digest_size=8
            ).hexdigest()
        if job.max_tokens is not None:
            body[self.max_tokens_field] = job.max_tokens
        return self._finished(body, job)

    def text_body(self, job: Job, prompt: TextPrompt, *, model: str, said: str = "") -> JsonObject:
        """A request to /completions.

        Raises:
            Unsupported: As `chat_body`.
        """
        body: JsonObject = {"model": model, "prompt": prompt.text + said}
        body["max_tokens"] = TEXT_TOKENS if job.max_tokens is None else job.max_tokens
        if job.top_logprobs is not None:
            body["logprobs"] = self._n_top(job.top_logprobs)
        if isinstance(job.constraint, JsonSchema):
            if self.regex_field not in _SCHEMA_FIELDS:
                raise Unsupported(
                    "this endpoint knows JSON schemas in chats only", hint="ask by a chat"
                )
            body |= _SCHEMA_FIELDS[self.regex_field](job.constraint.schema)
        return self._finished(body, job)

    def _finished(self, body: JsonObject, job: Job) -> JsonObject:
        """The fields that chats and texts share."""
        options: JsonObject = {"include_usage": True}
        if self.flavour is Flavour.VLLM:
            options["continuous_usage_stats"] = True  # counts of tokens with every chunk
        body |= {"stream": True, "stream_options": options}
        if self.flavour is Flavour.LLAMA_SERVER:
            body["timings_per_token"] = True  # which count tokens, too
        if job.stop:
            body["stop"] = list(job.stop)
        if isinstance(job.constraint, Regex):
            if not self.regex_field:
                raise Unsupported(
                    "this endpoint takes no regular expression", hint="use a JSON schema"
                )
            pattern = job.constraint.pattern
            body[self.regex_field] = (
                {"regex": pattern} if self.regex_field == "structured_outputs" else pattern
            )
        body |= self._sampling(job.sampling)
        return {name: value for name, value in body.items() if name not in self.dropped}

    def _n_top(self, n_top: int) -> int:
        """llama-server gives no log-probabilities at all when it is asked for no alternatives."""
        return max(1, n_top) if self.flavour is Flavour.LLAMA_SERVER else n_top

    def _sampling(self, sampling: Sampling) -> JsonObject:
        fields: JsonObject = {"temperature": sampling.temperature}
        if sampling.seed is not None:
            fields["seed"] = sampling.seed & self.seed_mask
        if sampling.logit_bias:
            fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
        for name in ("frequency_penalty", "presence_penalty"):
            if getattr(sampling, name):
                fields[name] = getattr(sampling, name)
        # Servers want it above 0; so little leaves one token, too.
        fields["top_p"] = max(sampling.top_p, 1e-6)
        if self.flavour is Flavour.OPENAI:  # has none of the others
            return fields
        # What is off is said, too: servers have defaults of their own.
        is_hf = self.flavour in {Flavour.VLLM, Flavour.SGLANG}
        fields["top_k"] = sampling.top_k or (-1 if is_hf else 0)
        fields["min_p"] = sampling.min_p
        if sampling.repeat_penalty != 1:
            fields["repetition_penalty" if is_hf else "repeat_penalty"] = sampling.repeat_penalty
        return fields


def message_json(message: Message) -> JsonObject:
    """A message in OpenAI's shape."""
    shown: JsonObject = {"role": message.role.value, "content": _content(message)}
    if message.name:
        shown["name"] = message.name
    if message.role is Role.TOOL:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shown["content"] = shown["content"] or None
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return shown


def tool_json(tool: ToolSpec) -> JsonObject:
    """A tool in OpenAI's shape."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def choice_json(choice: ToolChoice) -> str | JsonObject:
    """A tool choice in OpenAI's shape."""
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def format_json(constraint: JsonSchema) -> JsonObject:
    """A `response_format` in OpenAI's shape."""
    if not constraint.schema:
        return {"type": "json_object"}
    name = re.sub(r"[^A-Za-z0-9_-]", "_", constraint.name)[:64] or "output"
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": constraint.schema, "strict": True},
    }


def _content(message: Message) -> str | list[JsonObject]:
    if isinstance(message.content, str):
        return message.content
    return [_part(part) for part in message.content]


def _part(part: TextPart | ImagePart) -> JsonObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}
