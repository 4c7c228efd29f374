"""The verb `completion`."""

import click
from click.shell_completion import get_completion_class

from aios.cli.options import examples, json_option
from aios.cli.output import write_json

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        'eval "$(aios completion bash)"',
        "aios completion fish > ~/.config/fish/completions/aios.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(ctx: click.Context, *, shell: str, as_json: bool) -> None:
    """Print the script that teaches SHELL to complete `aios`."""
    cls = get_completion_class(shell)
    assert cls is not None, f"click knows no {shell}"
    script = cls(ctx.find_root().command, {}, "aios", "_AIOS_COMPLETE").source()
    if as_json:
        write_json({"shell": shell, "script": script})
    else:
        click.echo(script)
