"""Arguments and options that several verbs share."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from aios.sizes import LARGEST_BYTES, parse_size

F = TypeVar("F", bound=Callable[..., object])

NO_WORDS: Mapping[str, int] = {}


class Size(click.ParamType[int]):
    """A size such as 500MB, in bytes, `least` to `most`; `words` have values of their own."""

    name = "size"

    def __init__(
        self, least: int = 0, most: int = LARGEST_BYTES, words: Mapping[str, int] = NO_WORDS
    ) -> None:
        self._least = least
        self._most = most
        self._words = words

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it, or refuse it as click does."""
        text = str(value)
        if text in self._words:
            return self._words[text]
        try:
            size_bytes = parse_size(text)
        except ValueError as error:
            self.fail(" or ".join([str(error), *self._words]), param, ctx)
        if not self._least <= size_bytes <= self._most:
            self.fail(f"{text!r} is not between {self._least} and {self._most} bytes", param, ctx)
        return size_bytes


def _or_of_group(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """`aios models --json ls` means what `aios models ls --json` does."""
    return value or bool(context.parent and context.parent.params.get("as_json"))


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_or_of_group,
    help="JSON, one object a line; errors too.",
)


def limit_option(
    most: int, *, default: int = 10, about: str = "How many at most."
) -> Callable[[F], F]:
    """`-n`: how many hits a search shows."""
    amount = click.IntRange(1, most)
    return click.option(
        "-n", "--limit", type=amount, default=default, show_default=True, help=about
    )


ids_argument = click.argument("ids", nargs=-1, required=True, metavar="ID...")


def examples(*lines: str) -> str:
    """The end of a verb's help: lines to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
