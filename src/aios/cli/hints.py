"""Errors name system calls and arguments of the SDK, for programs read them; here commands and options stand for them."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import click

from aios.sdk.address import HINT

COMMANDS = {
    "file_list": "aios fs ls",
    "file_mounts": "aios fs mounts",
    "file_purge": "aios fs purge",
    "file_versions": "aios fs versions",
    "memory_list": "aios mem ls",
    "tool_describe": "aios tool show",
}

NO_KERNEL = "`aios serve --detach` starts one; if one runs, AIOS_HOME says for which home"

_CALL = re.compile(rf"`({'|'.join(COMMANDS)})`")
_HELP = re.compile(r"see `help\([\w.']+\)`")
_ARGUMENT = re.compile(r"`(\w+)(?:\[[0-9.]+\])?`")
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


def options_of(command: click.Command | None) -> Mapping[str, str]:
    """How a command's parameters are written on its line, by their names in the code, which are those of the SDK's arguments."""
    found = {}
    for param in command.params if command is not None else ():
        name = (param.name or "").rstrip("_")
        is_option = isinstance(param, click.Option)
        written = max(param.opts, key=len) if is_option else param.metavar or name.upper()
        found[name] = found[f"{name}s"] = written.rstrip(".")
    return found


def for_message(message: str, options: Mapping[str, str] = NO_OPTIONS) -> str:
    """A message that begins with the argument that is wrong, with the option in its place."""
    found = _ARGUMENT.match(message)
    if found is None or found[1] not in options or not message[found.end() :].startswith(": "):
        return message
    return f"`{options[found[1]]}`{message[found.end() :]}"


def for_commands(hint: str, options: Mapping[str, str] = NO_OPTIONS) -> str:
    """A hint as somebody at a terminal can follow it."""
    if hint == HINT:  # commands that need a kernel do not bring their own
        return NO_KERNEL
    named = _CALL.sub(lambda match: f"`{COMMANDS[match[1]]}`", hint)
    named = _ARGUMENT.sub(lambda match: f"`{options.get(match[1], match[0][1:-1])}`", named)
    return _HELP.sub("`--help` of the command shows what it takes", named)
