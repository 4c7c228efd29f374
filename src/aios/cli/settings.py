"""The verb `config`: every knob, its value, where the value came from and what it means."""

import click

from aios.cli.options import examples, json_option
from aios.cli.output import Column, write_json, write_table
from aios.configload import Setting, load

COLUMNS = (Column("KNOB"), Column("VALUE"), Column("FROM"), Column("MEANING"))


@click.group(
    invoke_without_command=True,
    epilog=examples("aios config", "aios config path", "AIOS_ENGINE_N_SLOTS=4 aios config"),
)
@json_option
@click.pass_context
def config(ctx: click.Context, *, as_json: bool) -> None:
    """Show each knob, its value, where that came from and what it means.

    A flag of a command comes before the environment (`AIOS_SECTION_KNOB`), that before the file, that before the default.
    """
    if ctx.invoked_subcommand is None:
        _show(as_json=as_json)


@config.command()
@json_option
def show(*, as_json: bool) -> None:
    """Show each knob; the same as `aios config` alone."""
    _show(as_json=as_json)


@config.command()
@json_option
def path(*, as_json: bool) -> None:
    """Print the path of the configuration file, which need not exist."""
    loaded = load()
    if as_json:
        told = {"file": loaded.file, "exists": loaded.file.is_file(), "home": loaded.home.root}
        write_json(
            {name: value if name == "exists" else str(value) for name, value in told.items()}
        )
    else:
        click.echo(str(loaded.file))


def _show(*, as_json: bool) -> None:
    rows = load().settings()
    if as_json:
        for row in rows:
            write_json(row)
        return
    write_table(COLUMNS, [_row(setting) for setting in rows])


def _row(setting: Setting) -> list[str]:
    value = "-" if setting.value == "" else str(setting.value)
    source = setting.source
    if source == "default":
        return [setting.name, value, click.style(source, dim=True), setting.description]
    return [setting.name, click.style(value, bold=True), source, setting.description]
