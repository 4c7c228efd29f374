"""Python functions as tools: what a model is told about them, and how its arguments become a call.

The JSON Schema comes from the type hints, the descriptions from the docstring (Google style). Nothing here waits;
`invoke.py` runs a tool for an agent, with its timeout.
"""

import inspect
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import (
    Annotated,
    Generic,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    get_type_hints,
    overload,
)

import msgspec
from msgspec import Meta, Struct

from aios.abi.tools import MAX_RESULT_BYTES, EffectName, ToolDeclaration, Traits
from aios.abi.types import JsonObject, ToolSpec
from aios.errors import InvalidCall
from aios.malformed import named
from aios.readers import convert, from_json
from aios.sdk.schemas import schema_of
from aios.sdk.terminated import Terminated

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

DEFAULT_TIMEOUT_S = 60.0
MAX_SERVED_BYTES = MAX_RESULT_BYTES - 256
"""A longer result of a served tool is cut; the rest is for the note that says so."""
LONGEST_TIMEOUT_S = 86_400.0
"""What the kernel is told of a tool without a limit."""
DEFAULT_MAX_RESULT_BYTES = 64 << 10
MAX_ERROR_CHARS = 2_000
N_QUOTED_CHARS = 200
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECTION = re.compile(r"(Args|Arguments|Parameters):\s*")
_ENTRY = re.compile(r"(\s+)\**(\w+)\s*(?:\([^)]*\))?:\s*(.*)")


class TraitOptions(TypedDict, total=False):
    """What a tool says of itself to the kernel; see `aios.abi.tools.Traits`."""

    effect: EffectName
    reads: Sequence[str]
    writes: Sequence[str]
    max_parallel: int
    is_pure: bool
    cost: int
    undo: str
    is_idempotent: bool
    key: str


class ToolOutcome(Struct, frozen=True):
    """What a tool gave back, as the model will read it. `is_error` marks that it failed, `is_json` that the text is JSON."""

    text: str
    is_error: bool = False
    is_json: bool = False


class Tool(Generic[P, R_co]):
    """A function that a model may call. Made by `tool`; calling it calls the function.

    `spec` is what the model is told, `timeout_s` the longest it may take in an agent (None has no limit),
    `max_result_bytes` what the model is shown of its result at most, `traits` what the kernel knows of it when it is served.
    """

    def __init__(
        self,
        function: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES,
        traits: Traits = Traits(),
    ) -> None:
        self.function = function
        self.traits = msgspec.structs.replace(
            traits, timeout_s=LONGEST_TIMEOUT_S if timeout_s is None else timeout_s
        )
        self.timeout_s = timeout_s
        self.max_result_bytes = max_result_bytes
        self.is_async = inspect.iscoroutinefunction(function)
        chosen = name if name is not None else getattr(function, "__name__", "")
        if not _NAME.fullmatch(chosen):
            raise InvalidCall(
                f"{chosen!r} is no name for a tool",
                hint="1 to 64 letters, digits, _ or -; pass name=...",
            )
        summary, notes = read_docstring(inspect.getdoc(function) or "")
        self._arguments = _arguments_class(chosen, function, notes)
        self._schema = _schema(self._arguments)
        self.spec = ToolSpec(
            chosen,
            description if description is not None else summary,
            _without_key(chosen, self._schema, self.traits.key),
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.usage()}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    def arguments(self, text: str) -> dict[str, object]:
        """The keyword arguments in the JSON text that a model wrote; an empty text is an empty object.

        Raises:
            InvalidCall: They do not fit; the message tells a model what to write instead.
        """
        try:
            fields = from_json(text.strip() or "{}", self._arguments)
        except (ValueError, RecursionError) as error:
            shown = text if len(text) <= N_QUOTED_CHARS else text[:N_QUOTED_CHARS] + "..."
            raise InvalidCall(
                f"the arguments {shown} do not fit {self.name}: {error}. "
                f"Call {self.usage()} again with one JSON object that has these properties.",
                hint="see the tool's parameters",
            ) from error
        return {name: getattr(fields, name) for name in fields.__struct_fields__}

    def declaration(self) -> ToolDeclaration:
        """What the kernel is told when the tool is served; its result is checked where its return hint is not a text."""
        hint = get_type_hints(self.function, include_extras=True).get("return", str)
        returns: JsonObject | None = None
        with suppress(InvalidCall):  # no schema: then any result will do
            returns = None if hint is str else schema_of(hint)
        return ToolDeclaration(self.name, self.spec.description, self._schema, returns, self.traits)

    def call_now(self, arguments: str, *, max_bytes: int | None = None) -> ToolOutcome:
        """Run a plain function here and now, on the JSON text that a model wrote; no timeout holds.

        Whatever it raises becomes an outcome for the model, but for KeyboardInterrupt and Terminated. The result is cut at `max_bytes`, or at
        `max_result_bytes` when that is None.

        Raises:
            InvalidCall: The tool is an async function.
        """
        if self.is_async:
            raise InvalidCall(
                f"{self.name} is async", hint="run it with `await aios.sdk.invoke.invoke(...)`"
            )
        try:
            function = cast("Callable[..., object]", self.function)
            return self.outcome(function(**self.arguments(arguments)), max_bytes=max_bytes)
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge to a tool's code: its bug is the model's news
            return failure(error)

    async def call_async(self, arguments: Mapping[str, object]) -> object:
        """Await an async function with checked arguments; it may raise whatever it likes."""
        function = cast("Callable[..., Awaitable[object]]", self.function)
        return await function(**arguments)

    def outcome(self, result: object, *, max_bytes: int | None = None) -> ToolOutcome:
        """A result as the model will read it: text as it is, else JSON; cut at `max_bytes`, by default `max_result_bytes`."""
        data = _encoded(result)
        n_bytes = len(data)
        limit = self.max_result_bytes if max_bytes is None else max_bytes
        if n_bytes <= limit:
            return ToolOutcome(data.decode(), is_json=not isinstance(result, str))
        kept = data[:limit].decode("utf-8", "ignore")
        return ToolOutcome(f"{kept}\n[cut: {limit} of {n_bytes} bytes]")

    def usage(self) -> str:
        """Its signature in words of JSON, such as `search(query: string, limit: integer = 5)`."""
        required = cast("list[str]", self.spec.parameters.get("required", []))
        properties = cast("dict[str, JsonObject]", self.spec.parameters["properties"])
        shown = [
            f"{name}: {_type_words(schema)}" + ("" if name in required else _default_words(schema))
            for name, schema in properties.items()
        ]
        return f"{self.name}({', '.join(shown)})"


@overload
def tool(function: Callable[P, R_co], /) -> Tool[P, R_co]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES,
    **traits: Unpack[TraitOptions],
) -> Callable[[Callable[P, R_co]], Tool[P, R_co]]: ...


def tool(
    function: Callable[P, R_co] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES,
    **traits: Unpack[TraitOptions],
) -> Tool[P, R_co] | Callable[[Callable[P, R_co]], Tool[P, R_co]]:
    """Make a function a tool, as `@tool` or `@tool(timeout_s=5)`.

    @tool
    def search(query: str, limit: int = 5) -> list[str]:
        "Find the notes in which the words of the query stand."

    A plain function runs in a worker thread when an agent calls it, an async one in the event loop. A thread cannot be
    stopped: when a plain function's timeout passes, the agent goes on and the thread ends whenever it does.

    Args:
        function: Every parameter needs a type hint that JSON can hold; defaults make parameters optional.
        name: The function's own when None.
        description: The first paragraph of the docstring when None.
        timeout_s: The longest it may take in an agent; None has no limit.
        max_result_bytes: What the model is shown of a result at most.
        traits: For a tool that is served to others through the kernel: `effect`, `reads`, `writes`, `max_parallel`, `is_pure`, `cost`, `undo`,
            `is_idempotent`, `key`; see `TraitOptions`.

    Raises:
        InvalidCall: The signature cannot be told to a model; the message says why.
    """

    def make(wrapped: Callable[P, R_co]) -> Tool[P, R_co]:
        return Tool(
            wrapped,
            name=name,
            description=description,
            timeout_s=timeout_s,
            max_result_bytes=max_result_bytes,
            traits=_traits(traits),
        )

    return make if function is None else make(function)


def failure(error: BaseException) -> ToolOutcome:
    """What a model is told of an exception: its type and message, not where it happened."""
    if isinstance(error, InvalidCall):
        words = error.message
    else:
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
    clean = words[:MAX_ERROR_CHARS].encode("utf-8", "replace").decode()
    return ToolOutcome(f"error: {clean}", is_error=True)


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and the descriptions of its parameters (Google style)."""
    paragraph: list[str] = []
    for line in text.splitlines():
        if not line.strip() or _SECTION.fullmatch(line):
            break
        paragraph.append(line.strip())
    return " ".join(paragraph), _read_parameters(text.splitlines())


def _read_parameters(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    name, indent, is_inside = "", "", False
    for line in lines:
        if not line[:1].isspace():
            is_inside = (is_inside and not line) or bool(_SECTION.fullmatch(line))
            continue
        if not is_inside:
            continue
        entry = _ENTRY.fullmatch(line)
        indent = indent or (entry[1] if entry else "")
        if entry and entry[1] == indent:
            name = entry[2]
            found[name] = [entry[3]]
        elif name:
            found[name].append(line.strip())
    return {name: " ".join(parts).strip() for name, parts in found.items()}


def _arguments_class(
    name: str, function: Callable[..., object], notes: Mapping[str, str]
) -> type[Struct]:
    """A Struct with one field for each parameter: JSON Schema and checking both come from it."""
    try:
        parameters = inspect.signature(function).parameters
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise InvalidCall(
            f"the signature of tool {name} cannot be read: {error}",
            hint="its type hints must be importable where it is defined",
        ) from error
    fields = [
        _field(name, parameter, hints=hints, note=notes.get(parameter.name, ""))
        for parameter in parameters.values()
    ]
    try:
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    except (TypeError, ValueError) as error:
        raise InvalidCall(f"tool {name}: {error}", hint="rename or retype the parameter") from error


def _field(
    tool_name: str, parameter: inspect.Parameter, *, hints: Mapping[str, object], note: str
) -> tuple[str, object] | tuple[str, object, object]:
    """One field of the arguments; also checks that JSON can hold it."""
    where = f"parameter `{parameter.name}` of tool {tool_name}"
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise InvalidCall(
            f"{where} has no fixed name (*args, **kwargs or positional-only)",
            hint="models pass arguments by name: spell the parameters out",
        )
    if parameter.name not in hints:
        hint = "add one, such as `query: str`"
        if parameter.name in {"self", "cls"}:
            hint = "make the bound method the tool: tool(thing.method)"
        raise InvalidCall(f"{where} has no type hint", hint=hint)
    kind = hints[parameter.name]
    try:
        schema_of(kind)
    except InvalidCall as error:
        raise InvalidCall(f"{where}: {error.message}", hint=error.hint) from error
    extra: JsonObject = {}
    has_default = parameter.default is not parameter.empty
    if has_default:
        extra = _json_default(parameter.default)
    if note or extra:
        kind = Annotated[kind, Meta(description=note or None, extra_json_schema=extra or None)]
    if not has_default:
        return parameter.name, kind
    default = parameter.default
    return parameter.name, kind, msgspec.field(default_factory=lambda: default)


def _traits(options: TraitOptions) -> Traits:
    try:
        return convert(options, Traits)
    except msgspec.ValidationError as error:
        raise InvalidCall(
            f"traits of a tool: {named(error)}", hint="see `help(aios.tool)`"
        ) from error


def _json_default(value: object) -> JsonObject:
    """The default for the schema, where JSON can hold it."""
    try:
        return {"default": msgspec.to_builtins(value)}
    except (TypeError, ValueError):
        return {}


def _schema(arguments: type[Struct]) -> JsonObject:
    schema = schema_of(arguments)
    schema.pop("title", None)
    return schema


def _without_key(name: str, schema: JsonObject, key: str) -> JsonObject:
    """The schema for a model: what the kernel fills in is not asked of it."""
    if not key:
        return schema
    properties = cast("dict[str, JsonObject]", schema["properties"])
    if key not in properties or key in cast("list[str]", schema.get("required", [])):
        raise InvalidCall(
            f"tool {name} names the key `{key}`, which is no parameter with a default",
            hint=f'add `{key}: str = ""`: it is empty where no kernel fills it in',
        )
    return {**schema, "properties": {n: part for n, part in properties.items() if n != key}}


def _encoded(result: object) -> bytes:
    if isinstance(result, str):
        return result.encode("utf-8", "replace")
    dump = getattr(result, "model_dump_json", None)
    if callable(dump):
        return str(dump()).encode("utf-8", "replace")
    return msgspec.json.encode(result)


def _type_words(schema: JsonObject) -> str:
    for key in ("enum", "anyOf"):
        options = schema.get(key)
        if isinstance(options, list):
            words = [
                _type_words(option) if isinstance(option, dict) else repr(option)
                for option in options
            ]
            return " | ".join(words)
    return str(schema.get("type", "any"))


def _default_words(schema: JsonObject) -> str:
    return f" = {schema['default']!r}" if "default" in schema else " (optional)"
