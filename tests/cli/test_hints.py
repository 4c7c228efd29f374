"""What the kernel tells programs to do, said for somebody at a terminal."""

import click
import pytest
from msgspec import inspect

from aios.abi.memory import Remember
from aios.cli.hints import COMMANDS, for_commands, for_message, options_of
from aios.cli.main import cli
from aios.errors import InvalidCall
from aios.kernel.storage.tables import no_file
from aios.kernel.syscall import TABLE
from aios.sdk.requests import build


def test_calls_in_a_hint_become_their_commands() -> None:
    assert for_commands(no_file("/x").hint) == (
        "`aios fs ls` shows what is there; a deleted one has `aios fs versions`"
    )
    with pytest.raises(InvalidCall) as caught:
        build(Remember, text="")
    assert for_commands(caught.value.hint) == "`--help` of the command shows what it takes"
    assert for_commands("set `memory.max_notes`") == "set `memory.max_notes`"


def test_the_calls_and_the_commands_are_there() -> None:
    kinds = [inspect.type_info(kind) for kind in TABLE]
    calls = {kind.tag for kind in kinds if isinstance(kind, inspect.StructType)}
    for call, words in COMMANDS.items():
        assert call in calls
        found: click.Command | None = cli
        for word in words.split()[1:]:
            assert isinstance(found, click.Group)
            found = found.get_command(click.Context(found), word)
        assert found is not None, words


def test_arguments_become_the_options_of_the_command() -> None:
    @click.command()
    @click.argument("notes", metavar="ID...", nargs=-1)
    @click.argument("query")
    @click.option("-n", "--limit", type=int)
    @click.option("--until", "valid_to_unix_s", type=float)
    @click.option("--tag", "tags", multiple=True)
    @click.option("--type", "type_")
    def command() -> None: ...

    options = options_of(command)
    for message, shown in (
        ("`tags[1]`: expected text", "`--tag`: expected text"),
        ("`query`: expected text", "`QUERY`: expected text"),
        ("`note`: expected text", "`note`: expected text"),
        ("`notes[0]`: expected text", "`ID`: expected text"),
        ("`limit`: expected text", "`--limit`: expected text"),
        ("`type`: expected text", "`--type`: expected text"),
        ("x/agent.toml is no manifest: `query`: no", "x/agent.toml is no manifest: `query`: no"),
        ("`query` of `limit`", "`query` of `limit`"),
    ):
        assert for_message(message, options) == shown
        assert for_message(message) == message
    hint = "`valid_to_unix_s` must be later than `created`"
    assert for_commands(hint, options) == "`--until` must be later than `created`"
    assert for_commands(hint) == hint
    assert options_of(None) == {}
