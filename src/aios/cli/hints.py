"""Hints name system calls, for programs read them; here their commands stand for them."""

import re

COMMANDS = {
    "file_list": "aios fs ls",
    "file_purge": "aios fs purge",
    "file_versions": "aios fs versions",
    "memory_list": "aios mem ls",
    "tool_describe": "aios tool show",
}

_CALL = re.compile(rf"`({'|'.join(COMMANDS)})`")
_HELP = re.compile(r"see `help\(\w+\)`")


def for_commands(hint: str) -> str:
    """A hint as somebody at a terminal can follow it."""
    named = _CALL.sub(lambda match: f"`{COMMANDS[match[1]]}`", hint)
    return _HELP.sub("`--help` of the command shows what it takes", named)
