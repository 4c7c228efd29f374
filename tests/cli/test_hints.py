"""What the kernel tells programs to do, said for somebody at a terminal."""

import click
import pytest
from msgspec import inspect

from aios.abi.memory import Remember
from aios.cli.hints import COMMANDS, for_commands
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
