"""What servers say of their tools, pinned by hash. Pure.

The definitions that the owner trusts are the *pins*: agents see them and nothing else. What a server offers is compared with its
pins; a tool that is new, or whose definition is another, waits for the owner's yes and is not called meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Literal

import msgspec
from msgspec import Struct

from aios.abi.mcp import McpState
from aios.abi.tools import EffectName, Traits
from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.kernel.tools.schema import Schema
from aios.mcpconfig import McpServer, McpToolTraits
from aios.readers import from_json

MAX_TOOLS = 256
"""Tools of one server: no model chooses well among more."""
MAX_DESCRIPTION_CHARS = 16 << 10
MAX_NAME_CHARS = 128
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-")


class Hints(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a server says that a tool does; nobody checks it."""

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class Definition(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A tool as its server defines it."""

    name: str
    input_schema: JsonObject
    title: str | None = None
    description: str | None = None
    output_schema: JsonObject | None = None
    annotations: Hints = Hints()

    @property
    def digest(self) -> str:
        """Another one whenever anything of it is another."""
        return blake2b(msgspec.json.encode(self, order="deterministic"), digest_size=16).hexdigest()

    @property
    def said(self) -> str:
        """What a model reads of it."""
        return self.description or self.title or self.annotations.title or ""


class Offer(Struct, frozen=True):
    """What a server offered when it was last asked."""

    tools: Mapping[str, Definition] = msgspec.field(default_factory=dict)
    refused: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Tools that the kernel cannot take, and why."""


def read_offer(found: Iterable[bytes]) -> Offer:
    """Sort what a server listed; each item is the JSON of one tool."""
    tools: dict[str, Definition] = {}
    refused: dict[str, str] = {}
    for text in found:
        try:
            tool = from_json(text, Definition)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            refused["?"] = f"malformed: {error}"
            continue
        if len(tools) >= MAX_TOOLS:
            why = f"more than {MAX_TOOLS} tools"
        else:
            why = "listed twice" if tool.name in tools else _refusal(tool)
        if why:
            if len(refused) < MAX_TOOLS:
                refused[tool.name[:MAX_NAME_CHARS]] = why
        else:
            tools[tool.name] = tool
    return Offer(tools, refused)


def state_of(
    name: str, pins: Mapping[str, Definition], offered: Mapping[str, Definition] | None
) -> McpState:
    """How a tool stands; `offered` is None before the server was asked."""
    pin = pins.get(name)
    if offered is None:
        return McpState.TRUSTED
    now = offered.get(name)
    if pin is None:
        return McpState.NEW
    if now is None:
        return McpState.GONE
    return McpState.TRUSTED if now.digest == pin.digest else McpState.CHANGED


def changes(
    pins: Mapping[str, Definition], offered: Mapping[str, Definition] | None
) -> dict[str, McpState]:
    """The tools that are not as they were trusted."""
    if offered is None:
        return {}
    names = sorted({*pins, *offered})
    states = {name: state_of(name, pins, offered) for name in names}
    return {name: state for name, state in states.items() if state is not McpState.TRUSTED}


def digest_of(spec_digest: str, offered: Mapping[str, Definition] | None) -> str:
    """What the owner says yes to: this server, offering these tools."""
    said = (spec_digest, sorted(tool.digest for tool in (offered or {}).values()))
    return blake2b(msgspec.json.encode(said), digest_size=16).hexdigest()


def traits_of(definition: Definition, options: McpServer, *, timeout_s: float) -> Traits:
    """The traits of a tool, in which its undo has the name that its server gives it: what nothing is said of is irreversible."""
    said = options.tools.get(definition.name, McpToolTraits())
    is_idempotent = said.is_idempotent
    if is_idempotent is None:
        is_idempotent = options.believes_hints and definition.annotations.idempotent_hint is True
    return Traits(
        effect=declared_effect(definition, options),
        max_parallel=options.max_parallel,
        timeout_s=timeout_s,
        is_pure=said.is_pure,
        undo=said.undo or "",
        is_idempotent=is_idempotent,
        key=said.key if said.key is not None and said.key in parameters_of(definition) else "",
    )


def parameters_of(definition: Definition) -> Collection[str]:
    """The names of a tool's parameters."""
    properties = definition.input_schema.get("properties")
    return properties if isinstance(properties, dict) else ()


def declared_effect(definition: Definition, options: McpServer) -> EffectName:
    """What a tool does: the owner's word of it, of its server, then the server's own if that is believed."""
    said = options.tools.get(definition.name)
    owners = said.effect if said is not None and said.effect is not None else options.effect
    if owners is not None:
        return owners
    return effect_of(definition.annotations) if options.believes_hints else "irreversible"


def unknown_names(options: McpServer, tools: Mapping[str, Definition]) -> str:
    """What is wrong if the owner names tools or parameters that are not there: perhaps they are spelt otherwise, and count for nothing."""
    undos = {said.undo for said in options.tools.values() if said.undo is not None}
    unknown = ", ".join(sorted({*options.tools, *undos} - set(tools)))
    if unknown:
        known = ", ".join(sorted(tools)) or "none"
        return f"the configuration speaks of {unknown}, which it does not have; it has {known}"
    for name, said in options.tools.items():
        if said.key is not None and said.key not in parameters_of(tools[name]):
            return f"the configuration gives {name} the key {said.key}, which is none of its parameters"
    return ""


def effect_of(hints: Hints) -> EffectName:
    """The effect class that hints amount to.

    A tool that reads, but from an open world, may carry what it is asked out of the house: it counts as compensable.
    """
    if hints.read_only_hint:
        pure: Literal["pure"] = "pure"
        return pure if hints.open_world_hint is False else "compensable"
    if hints.destructive_hint is False:
        return "compensable"
    return "irreversible"


def _refusal(tool: Definition) -> str:
    if not 0 < len(tool.name) <= MAX_NAME_CHARS or not set(tool.name) <= _NAME_CHARS:
        return "its name cannot be that of a tool, and is not changed"
    if len(tool.said) > MAX_DESCRIPTION_CHARS:
        return f"its description is over {MAX_DESCRIPTION_CHARS} characters"
    for schema in (tool.input_schema, tool.output_schema):
        try:
            if schema is not None:
                Schema(schema).check()
        except InvalidCall as error:
            return error.message
    return ""
