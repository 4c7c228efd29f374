"""Arguments and options that several verbs share."""

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="JSON, one object a line; errors too."
)

ids_argument = click.argument("ids", nargs=-1, required=True, metavar="ID...")


def examples(*lines: str) -> str:
    """The end of a verb's help: lines to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
