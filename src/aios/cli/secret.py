"""The verbs `secret set`, `ls` and `rm`: what the egress proxy puts into requests. They work on the file; no kernel need run."""

import sys

import click

from aios.cli.options import examples, json_option
from aios.cli.output import Column, write_json, write_table
from aios.configload import load
from aios.kernel.egress.secrets import MAX_CHARS, Secret, SecretStore, placeholder


@click.group()
def secret() -> None:
    """Keep secrets that programs use and never see: the proxy puts them into requests."""


@secret.command("set", epilog=examples("aios secret set API_KEY --host api.example.com < key.txt"))
@click.argument("name")
@click.option(
    "--host", "hosts", multiple=True, required=True, help="A host that it is for; may be repeated."
)
@json_option
def set_secret(*, name: str, hosts: tuple[str, ...], as_json: bool) -> None:
    """Set secret NAME to what comes on standard input, one line; a terminal asks and does not show it."""
    if sys.stdin.isatty():
        value = click.prompt(name, hide_input=True, err=True)
    else:
        value = sys.stdin.read(MAX_CHARS + 3).removesuffix("\n").removesuffix("\r")
    _store().put(name, Secret(value, hosts))
    if as_json:
        write_json({"name": name, "hosts": hosts, "placeholder": placeholder(name)})
    else:
        click.echo(f"{name}: programs hold {placeholder(name)}; for {', '.join(hosts)}")


@secret.command("ls", epilog=examples("aios secret ls", "aios secret ls --json"))
@json_option
def list_secrets(*, as_json: bool) -> None:
    """List the names of secrets and the hosts that they are for."""
    found = sorted(_store().load().items())
    if as_json:
        for name, each in found:
            write_json({"name": name, "hosts": each.hosts})
        return
    write_table(
        [Column("NAME"), Column("HOSTS")], [[name, ", ".join(each.hosts)] for name, each in found]
    )


@secret.command("rm", epilog=examples("aios secret rm API_KEY"))
@click.argument("name")
@json_option
def remove_secret(*, name: str, as_json: bool) -> None:
    """Forget secret NAME, at once for running programs too."""
    _store().remove(name)
    if as_json:
        write_json({"name": name})
    else:
        click.echo(f"{name} is gone")


def _store() -> SecretStore:
    return SecretStore(load().home.secrets)
