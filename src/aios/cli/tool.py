"""The verb `tool`: the tools of the kernel and of processes, as their owner sees them."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from aios.abi.tools import ToolInfo
from aios.abi.types import JsonObject
from aios.cli.connecting import connect
from aios.cli.durations import Seconds
from aios.cli.options import examples, json_option
from aios.cli.output import Column, printable, short_count, shortened, write_json, write_table
from aios.errors import InvalidCall

SHOWN_CHARS = 48
COLUMNS = (
    Column("NAME"),
    Column("KIND"),
    Column("EFFECT"),
    Column("RUNNING", is_number=True),
    Column("WAITING", is_number=True),
    Column("RUNS", is_number=True),
    Column("FAILED", is_number=True),
    Column("DESCRIPTION"),
)


@click.group()
def tool() -> None:
    """List, look at and run tools."""


@tool.command(epilog=examples("aios tool ls", "aios tool ls --json"))
@json_option
def ls(*, as_json: bool) -> None:
    """List the tools that there are, those of processes included."""
    with connect() as client:
        tools = client.tools.list()
    if as_json:
        for each in tools:
            write_json(each)
        return
    write_table(COLUMNS, [_row(each) for each in tools])


@tool.command(epilog=examples("aios tool show calculator", "aios tool show editor/search --json"))
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show what tool NAME does, what it takes, and what it says of itself."""
    with connect() as client:
        (found,) = client.tools.describe(name)
    if as_json:
        write_json(found)
        return
    click.echo(printable(f"{found.name} ({found.kind.value})\n{found.description}\n"))
    for key, part in _properties(found).items():
        click.echo(printable(f"  {key}: {_described(part, is_required=key in _required(found))}"))
    click.echo(printable(f"\n{_traits(found)}"))


@tool.command(
    epilog=examples(
        "aios tool run calculator expression='6 * 7'",
        "aios tool run files action=list path=/shared --json",
        """aios tool run calculator --json-args '{"expression": "6 * 7"}'""",
    )
)
@click.argument("name")
@click.argument("words", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--json-args", metavar="TEXT", help="All arguments as one JSON object; - reads it.")
@click.option("--timeout", "deadline_s", type=Seconds(), help="60 (seconds), 5m or 1h.")
@json_option
def run(
    *,
    name: str,
    words: Sequence[str],
    json_args: str | None,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Run tool NAME as the owner of the kernel, and print what it brings.

    A VALUE is taken as text where the tool wants a text, else as JSON. Notes of the result, such as where a long one is kept,
    go to standard error.
    """
    if json_args is not None and words:
        raise click.UsageError("give KEY=VALUE or --json-args, not both")
    with connect() as client:
        if json_args is not None:
            given: JsonObject | str = _read(json_args)
        else:
            (found,) = client.tools.describe(name)
            given = parse_words(words, _properties(found))
        result = client.tools.run(name, given, deadline_s=deadline_s)
    if as_json:
        write_json(result)
        return
    click.echo(printable(result.text.removesuffix("\n")))
    for note in result.notes:
        click.echo(printable(note), err=True)


@tool.command(epilog=examples("aios tool install ./words.toml"))
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@json_option
def install(*, files: Sequence[str], as_json: bool) -> None:
    """Add the tools that manifests FILES describe, until the kernel ends; those in `tools/` of AIOS_HOME are always there."""
    with connect() as client:
        names = client.tools.install(*(str(Path(file).resolve()) for file in files))
    if as_json:
        write_json({"names": names})
    else:
        click.echo("\n".join(names))
        click.echo(
            "until the kernel ends; copied to `tools/` of AIOS_HOME it is always there", err=True
        )


@tool.command(epilog=examples("aios tool rm text/words"))
@click.argument("names", nargs=-1, required=True)
@json_option
def rm(*, names: Sequence[str], as_json: bool) -> None:
    """Withdraw tools that were installed."""
    with connect() as client:
        client.tools.unregister(*names)
    if as_json:
        write_json({"names": names})


def parse_words(words: Sequence[str], properties: JsonObject) -> JsonObject:
    """Arguments from the words of a command line, by the types that the tool wants.

    Raises:
        InvalidCall: A word has no `=`.
    """
    found: JsonObject = {}
    for word in words:
        key, has_value, value = word.partition("=")
        if not has_value:
            raise InvalidCall(
                f"{word!r} is no KEY=VALUE", hint=f"keys: {', '.join(properties) or 'none'}"
            )
        found[key] = _value(value, properties.get(key))
    return found


def _value(text: str, part: object) -> object:
    """A value as the schema of its argument wants it: text stays text, what is JSON becomes a value."""
    if isinstance(part, dict) and (part.get("type") == "string" or "enum" in part):
        return text
    try:
        value: object = msgspec.json.decode(text)
    except ValueError:
        return text
    return value


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _row(found: ToolInfo) -> list[str]:
    return [
        printable(found.name),
        found.kind.value,
        found.traits.effect,
        str(found.n_running),
        str(found.n_waiting),
        short_count(found.n_runs),
        short_count(found.n_failed),
        printable(shortened(found.description.partition("\n")[0], SHOWN_CHARS)),
    ]


def _properties(found: ToolInfo) -> JsonObject:
    properties = found.parameters.get("properties")
    return properties if isinstance(properties, dict) else {}


def _required(found: ToolInfo) -> list[object]:
    required = found.parameters.get("required")
    return required if isinstance(required, list) else []


def _traits(found: ToolInfo) -> str:
    """What it says of itself, but for what it does not do."""
    told = []
    for key, value in msgspec.structs.asdict(found.traits).items():
        if isinstance(value, tuple):
            value = " ".join(value)
        if value is True:
            told.append(key)
        elif value:
            told.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(told)


def _described(part: object, *, is_required: bool) -> str:
    if not isinstance(part, dict):
        return "anything"
    options = part.get("enum")
    kind = " | ".join(map(str, options)) if isinstance(options, list) else part.get("type", "any")
    rest = f", {part['default']!r} if left out" if "default" in part else ", optional"
    if is_required:
        rest = ""
    return f"{kind}{rest}. {part.get('description', '')}".rstrip(". ")
