"""Hints name system calls, for programs read them; here their commands stand for them."""

import re

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
_HELP = re.compile(r"see `help\(\w+\)`")


def for_commands(hint: str) -> str:
    """A hint as somebody at a terminal can follow it."""
    if hint == HINT:  # commands that need a kernel do not bring their own
        return NO_KERNEL
    named = _CALL.sub(lambda match: f"`{COMMANDS[match[1]]}`", hint)
    return _HELP.sub("`--help` of the command shows what it takes", named)
