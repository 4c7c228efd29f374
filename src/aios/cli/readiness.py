"""Whether the engines that the configuration asks for can run at all: found out before a kernel is started for it."""

import sys

import click

from aios.config import EngineConfig, Home
from aios.configload import Loaded
from aios.engine.opening import engine_kind, open_engine
from aios.errors import ModelMissing

NO_ENGINE = "none"


def check_engine(loaded: Loaded, *, may_ask: bool) -> None:
    """Return if every engine has what it needs; none is started.

    Args:
        loaded: The configuration.
        may_ask: On a terminal, offer to fetch a missing model.

    Raises:
        ConfigError: The configuration lacks what this kind of engine needs.
        EngineUnavailable: The embedded engine is not installed.
        ModelMissing: Its model is not there, or not whole.
    """
    for name, config in loaded.config.all_engines().items():
        if engine_kind(config) != NO_ENGINE:
            _check(name, config, loaded.home, may_ask=may_ask)


def _check(name: str, config: EngineConfig, home: Home, *, may_ask: bool) -> None:
    try:
        open_engine(name, config, home)
    except ModelMissing as error:
        if not (may_ask and _wants_pull(error)):
            raise
        from aios.cli.models import fetch  # noqa: PLC0415 - start-up time: only who pulls pays for it

        fetch(config.model, home, as_json=False)


def _wants_pull(error: ModelMissing) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(error.message, err=True)
    return click.confirm("Fetch it now?", default=False, err=True)
