"""Links to files: `fs share --link`, `fs links` and `fs unlink`."""

import click

from aios.abi.links import LINK_ROUTE
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import Column, moment, write_json, write_table
from aios.errors import KernelUnreachable


def make_link(path: str, lifetime_s: float, *, as_json: bool) -> None:
    """Make a link and print its address."""
    with connect() as client:
        servers = [url for url in client.info().urls if url.startswith("http")]
        if not servers:
            raise KernelUnreachable(
                "this kernel serves no HTTP, so nobody could follow a link", hint="`aios serve`"
            )
        link = client.files.link(path, lifetime_s=lifetime_s)
    url = f"{servers[0]}{LINK_ROUTE}{link.token}"
    if as_json:
        write_json({"url": url, "link": link})
    else:
        click.echo(url)
        click.echo(
            f"version {link.version} of {link.path}, until {moment(link.expires_unix_s)}; "
            f"`aios fs unlink {link.id}` ends it",
            err=True,
        )


@click.command(epilog=examples("aios fs links"))
@json_option
def links(*, as_json: bool) -> None:
    """List the links that have not expired."""
    with connect() as client:
        found = client.files.links()
    if as_json:
        for link in found:
            write_json(link)
        return
    columns = [Column("ID"), Column("PATH"), Column("VERSION", is_number=True), Column("UNTIL")]
    rows = [[link.id, link.path, str(link.version), moment(link.expires_unix_s)] for link in found]
    write_table(columns, rows)


@click.command(epilog=examples("aios fs unlink 0123456789abcdef"))
@click.argument("link_id", metavar="ID")
@json_option
def unlink(*, link_id: str, as_json: bool) -> None:
    """End a link at once."""
    with connect() as client:
        client.files.unlink(link_id)
    if as_json:
        write_json({"id": link_id})
    else:
        click.echo(f"link {link_id} has ended")
