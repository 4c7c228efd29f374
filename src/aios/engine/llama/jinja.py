"""A jinja2 environment for the templates inside model files, which strangers wrote.

The sandbox of jinja2 keeps a template away from Python. It does not keep it from running for ever or from filling the
memory, so the environment here counts steps, looks at the clock and measures what is made, texts and nested lists: a template
that goes over a limit is refused. Names and filters are those that templates of the Hugging Face hub expect.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from threading import local
from typing import Final, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes, pass_environment
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from aios.errors import InvalidCall, TooLarge

MAX_SOURCE_CHARS: Final = 1 << 18
MAX_OUTPUT_CHARS: Final = 1 << 24
MAX_MADE_CHARS: Final = (
    1 << 29
)  # of all texts and lists made in one rendering, most of them short-lived
MAX_ITEMS: Final = 1 << 18  # in a list or dict, those of its inner ones included
MAX_STEPS: Final = 50_000  # passes of all loops and macros in one rendering
MAX_RENDER_S: Final = 3.0
"""Of the processor, for on a busy machine a good template takes longer. Looked at in each step, so one filter over a long list may go beyond it."""
MAX_RANGE: Final = 10_000
MAX_INDENT: Final = 16


class TemplateRefused(TemplateError):
    """The template itself says no, by `raise_exception`, or went over a limit."""


class _Account(local):
    """What the rendering of this thread has used. Others render meanwhile: nobody waits for a long one."""

    n_steps = 0
    n_made_chars = 0
    give_up_s = 0.0


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with limits for each rendering. Safe in several threads at once.

    Args:
        clock: What `strftime_now` formats.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        self._account = _Account()
        self.begin()
        self.globals.pop("lipsum")
        self.globals |= {
            "range": _bounded_range,
            "raise_exception": _refuse,
            "strftime_now": lambda form: clock().strftime(form),
        }
        for name in _GROWING_FILTERS:
            del self.filters[name]
        self.filters |= {
            "tojson": _to_json,
            "replace": self.replaced,
            "join": pass_environment(_join),
            "indent": self.indented,
        }

    def begin(self) -> None:
        """Count anew: a rendering begins in this thread."""
        self._account.n_steps = 0
        self._account.n_made_chars = 0
        self._account.give_up_s = time.thread_time() + MAX_RENDER_S

    def step(self) -> bool:
        """Count one pass of a loop; True, so that it can stand in a condition."""
        account = self._account
        account.n_steps += 1
        if account.n_steps > MAX_STEPS:
            raise TemplateRefused(f"it takes more than {MAX_STEPS} steps")
        if time.thread_time() > account.give_up_s:
            raise TemplateRefused(f"it takes more than {MAX_RENDER_S:g} s")
        return True

    def make(self, length: int) -> None:
        """Account for a text or list of this length, before or after it is made."""
        if length > MAX_OUTPUT_CHARS:
            raise TemplateRefused(f"it makes a text or list longer than {MAX_OUTPUT_CHARS}")
        self._account.n_made_chars += length
        if self._account.n_made_chars > MAX_MADE_CHARS:
            raise TemplateRefused(f"it makes more than {MAX_MADE_CHARS} characters")

    def built(self, value: object) -> object:
        """Account for a list, tuple or dict that the template wrote down, with all that is in it."""
        self.make(_weight(value))
        self.step()
        return value

    def joined(self, parts: Iterable[object]) -> str:
        """What `~` does."""
        return _concatenated(self, "", parts)

    def replaced(self, text: object, old: object, new: object, count: int = -1) -> str:
        """What the filter `replace` and the method of texts do."""
        source, before, after = str(text), str(old), str(new)
        self.make(len(source) + source.count(before) * len(after))
        return source.replace(before, after, count)

    def indented(
        self, text: object, width: int | str = 4, first: bool = False, blank: bool = False
    ) -> str:
        """What jinja2's filter does, for a width that is not absurd."""
        margin = width if isinstance(width, str) else " " * min(width, MAX_INDENT)
        lines = str(text).splitlines()
        self.make(len(str(text)) + len(lines) * len(margin))
        rest = [margin + line if line or blank else line for line in lines[1:]]
        return "\n".join([margin + line if first else line for line in lines[:1]] + rest)

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Do arithmetic, unless the result would be huge."""
        if operator == "**":
            raise TemplateRefused("it uses powers")
        if operator == "*":
            self.make(_product(left, right))
        if operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise TemplateRefused("it pads a text without limit")
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, list | tuple):
            return self.built(result)
        self.make(len(result) if isinstance(result, str) else 0)
        return result

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        """What the sandbox calls for `format` of a text, to which it would give a safe form."""
        if super().wrap_str_format(value) is not None:
            raise TemplateRefused("it uses `format`, which can make a text of any length")
        return None

    def call(__self, __context: Context, __obj: object, *args: object, **kwargs: object) -> object:
        """Call what the template calls, unless it is a method of a text that could make a huge one."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name in _GROWING_METHODS:
                raise TemplateRefused(f"it uses `{name}`, which can make a text of any length")
            if name in _BOUNDED_METHODS:
                return _BOUNDED_METHODS[name](__self, owner, *args)
        return super().call(__context, __obj, *args, **kwargs)


class Program:
    """A compiled template.

    Args:
        source: jinja2 source.
        clock: What `strftime_now` formats.

    Raises:
        InvalidCall: The source is no template, or too long.
    """

    def __init__(self, source: str, clock: Callable[[], datetime]) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise InvalidCall(
                f"the model's chat template has {len(source)} characters; the limit is {MAX_SOURCE_CHARS}"
            )
        self._environment = BoundedEnvironment(clock)
        try:
            tree = _Bounding().visit(self._environment.parse(source))
            tree.set_environment(self._environment)
            code = self._environment.compile(tree)
            self._template = self._environment.template_class.from_code(
                self._environment, code, self._environment.make_globals(None)
            )
        except (TemplateSyntaxError, RecursionError, MemoryError) as error:
            raise InvalidCall(f"the model's chat template is no template: {error}") from error

    def render(self, variables: Mapping[str, object]) -> str:
        """The text for these variables. May be called from several threads at once.

        Raises:
            InvalidCall: The template refuses them, or fails on them.
            TooLarge: The text has more than `MAX_OUTPUT_CHARS`.
        """
        self._environment.begin()
        try:
            return self._collect(variables)
        except TemplateRefused as error:
            raise InvalidCall(
                f"the model's chat template refuses these messages: {error}",
                hint="check the order of the roles, and whether this model takes system messages and tools",
            ) from error
        except _TEMPLATE_ERRORS as error:
            raise InvalidCall(
                f"the model's chat template fails on these messages: {type(error).__name__}: {str(error)[:300]}"
            ) from error

    def _collect(self, variables: Mapping[str, object]) -> str:
        pieces: list[str] = []
        n_chars = 0
        for piece in self._template.generate(variables):
            n_chars += len(piece)
            if n_chars > MAX_OUTPUT_CHARS:
                raise TooLarge(f"the prompt has more than {MAX_OUTPUT_CHARS} characters")
            pieces.append(piece)
        return "".join(pieces)


# What Python raises when a template adds a number to a text, or takes a field of something undefined.
_TEMPLATE_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
_GROWING_FILTERS: Final = (
    "batch",
    "center",
    "format",
    "round",
    "slice",
    "urlize",
    "wordwrap",
    "xmlattr",
)
_GROWING_METHODS: Final = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "translate"}
)
_WIDE_FORMAT: Final = re.compile(r"\d{4}|\*")


class _Bounding(NodeTransformer):
    """Makes every loop and macro count its steps, and `~` and all that holds values measure what they make."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        if node.test is not None:
            node.test = nodes.And(_call("step"), node.test)
        node.body.insert(0, nodes.ExprStmt(_call("step")))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("step")))
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_plain(node.items) else _call("built", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" or _is_plain(node.items) else _call("built", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_plain([pair.value for pair in node.items]) else _call("built", node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", nodes.List(node.nodes))


def _is_plain(values: Iterable[nodes.Expr]) -> bool:
    return all(isinstance(value, nodes.Const) for value in values)


def _call(method: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)


class _Generation(Extension):
    """`{% generation %}`, with which templates mark the assistant's words for training; it changes no text."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: object = "") -> NoReturn:
    raise TemplateRefused(str(message)[:500])


def _bounded_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise TemplateRefused(f"it counts to {len(numbers)}; the limit is {MAX_RANGE}")
    return numbers


def _to_json(
    value: object,
    *,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the escapes for HTML that jinja2's own filter makes: models were trained on plain JSON."""
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise TemplateRefused(f"it indents by {indent}; the limit is {MAX_INDENT}")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _join(
    environment: BoundedEnvironment,
    values: Iterable[object],
    separator: object = "",
    attribute: str = "",
) -> str:
    if attribute:
        values = map(make_attrgetter(environment, attribute), values)
    return _concatenated(environment, str(separator), values)


def _concatenated(environment: BoundedEnvironment, separator: str, values: Iterable[object]) -> str:
    parts = [str(value) for value in values]
    environment.make(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _product(left: object, right: object) -> int:
    """How long a product will be, before it is made."""
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > 256:
            raise TemplateRefused("it multiplies huge numbers")
        return 0
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | list | tuple) and isinstance(times, int):
            return len(many) * max(times, 0)
    return 0


def _weight(value: object) -> int:
    """Roughly how long a value is as text: what is in it twice counts twice, for so it would be written.

    Cost: linear in the items, of which there may be `MAX_ITEMS`.
    """
    level, n_items, n_chars = [value], 0, 0
    while level:
        n_items += len(level)
        n_chars += sum(len(item) for item in level if isinstance(item, str))
        if n_items > MAX_ITEMS or n_chars > MAX_OUTPUT_CHARS:
            raise TemplateRefused(
                f"it makes a text or list longer than {MAX_OUTPUT_CHARS}, or of {MAX_ITEMS} items"
            )
        level = [inner for item in level for inner in _inner(item)]
    return n_items + n_chars


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


_BOUNDED_METHODS: Final[Mapping[str, Callable[..., str]]] = {
    "replace": BoundedEnvironment.replaced,
    "join": _concatenated,
}
