"""The verb `mcp`: servers of the Model Context Protocol, and what their owner trusts of them."""

from collections.abc import Sequence

import click
import msgspec

from aios.abi.mcp import McpServerInfo, McpState, McpStatus, McpTool, McpToolList
from aios.abi.types import JsonObject
from aios.cli.connecting import connect
from aios.cli.exits import ExitCode
from aios.cli.options import examples, json_option
from aios.cli.output import (
    Column,
    agreed,
    counted,
    legible,
    printable,
    shortened,
    write_json,
    write_table,
)
from aios.errors import AccessDenied, ToolFailed
from aios.sdk.blocking import Client

SHOWN_CHARS = 60
SERVER_COLUMNS = (
    Column("NAME"),
    Column("STATUS"),
    Column("TRANSPORT"),
    Column("WHERE"),
    Column("PROTOCOL"),
    Column("TOOLS", is_number=True),
    Column("WAITING", is_number=True),
    Column("STARTS", is_number=True),
    Column("NOTE"),
)
TOOL_COLUMNS = (Column("NAME"), Column("STATE"), Column("EFFECT"), Column("DESCRIPTION"))


@click.group()
def mcp() -> None:
    """List, check and trust servers of the Model Context Protocol."""


@mcp.command(epilog=examples("aios mcp ls", "aios mcp ls --json"))
@json_option
def ls(*, as_json: bool) -> None:
    """List the servers of the configuration and of its `.mcp.json` files; none is started for it."""
    with connect() as client:
        servers = client.mcp.list()
    _show_servers(servers, as_json=as_json)


@mcp.command(epilog=examples("aios mcp check", "aios mcp check git --json"))
@click.argument("names", nargs=-1)
@json_option
def check(*, names: Sequence[str], as_json: bool) -> int:
    """Start servers NAMES, or all, and ask each for its tools; the exit code is 1 when one fails or waits for a yes."""
    with connect() as client:
        servers = client.mcp.check(*names)
    _show_servers(servers, as_json=as_json)
    is_well = all(each.status is McpStatus.RUNNING and not each.n_waiting for each in servers)
    return ExitCode.OK if is_well else ExitCode.FAILED


@mcp.command(epilog=examples("aios mcp tools git", "aios mcp tools git --json"))
@click.argument("name")
@json_option
def tools(*, name: str, as_json: bool) -> None:
    """Show the tools of server NAME, and how they differ from what was trusted; one that was never asked for them is started.

    It fails when the server does, after what is known of it.
    """
    with connect() as client:
        found = _listed(client, client.mcp.tools(name))
    if as_json:
        for each in found.tools:
            write_json(each)
    else:
        _show_tools(found)
        _show_changes(found)
    _check_well(found)


@mcp.command(epilog=examples("aios mcp trust git", "aios mcp trust git --yes"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def trust(*, name: str, yes: bool, as_json: bool) -> int:
    """Say yes to server NAME and to all that it offers now, after showing what is new or changed.

    What was shown is what is trusted: if the server offers something else meanwhile, nothing is. A server that was never
    started shows no tools before the yes; it is started then, and those that it offers are shown and kept.
    """
    with connect() as client:
        found = client.mcp.tools(name)
        if not as_json:
            _show_server(found)
            _show_changes(found)
        elif not yes:
            raise click.UsageError("with --json nothing is shown to be agreed to: say --yes")
        if not yes and not agreed(
            f"Trust {printable(name)} as it is now?",
            unasked="nothing is trusted; `--yes` trusts it without a question",
        ):
            return ExitCode.FAILED
        trusted = client.mcp.trust(name, found.digest)
        listed = _listed(client, trusted)
    if as_json:
        write_json(listed.server)
    else:
        click.echo(f"trusted: {printable(name)}, {counted(listed.server.n_tools, 'tool')}")
    if listed is not trusted:
        if not as_json:
            _show_tools(listed)
        _check_well(listed)
    return ExitCode.OK


def _listed(client: Client, found: McpToolList) -> McpToolList:
    """The tools of a server; one that was never asked for them is started."""
    if found.server.status is not McpStatus.UNKNOWN:
        return found
    client.mcp.check(found.server.name)
    return client.mcp.tools(found.server.name)


def _show_tools(found: McpToolList) -> None:
    if found.tools:
        write_table(TOOL_COLUMNS, [_tool_row(each) for each in found.tools])


def _check_well(found: McpToolList) -> None:
    """Return if the tools that were shown are all that there is to say.

    Raises:
        AccessDenied: Nothing is known of the server, which is not trusted.
        ToolFailed: It does not run.
    """
    server = found.server
    if server.status in {McpStatus.FAILING, McpStatus.UNUSABLE}:
        raise ToolFailed(
            f"MCP server {printable(server.name)} does not run: {printable(server.note)}",
            hint=f"`aios mcp check {server.name}` tries it again",
        )
    if server.status is McpStatus.UNTRUSTED and not found.tools:
        raise AccessDenied(
            f"MCP server {printable(server.name)} is started once you trust it: it was added to {server.source}, or changed there",
            hint=f"`aios mcp trust {server.name}`",
        )


def _show_servers(servers: Sequence[McpServerInfo], *, as_json: bool) -> None:
    if as_json:
        for each in servers:
            write_json(each)
        return
    write_table(SERVER_COLUMNS, [_server_row(each) for each in servers])


def _server_row(found: McpServerInfo) -> list[str]:
    return [
        printable(found.name),
        found.status.value,
        found.transport,
        printable(found.where),
        found.protocol or "-",
        str(found.n_tools),
        str(found.n_waiting),
        str(found.n_starts),
        printable(shortened(found.note, SHOWN_CHARS)),
    ]


def _tool_row(found: McpTool) -> list[str]:
    said = found.note or _text(found.now or found.trusted, "description")
    return [
        printable(found.name),
        found.state.value,
        found.effect,
        printable(shortened(said.partition("\n")[0], SHOWN_CHARS)),
    ]


def _show_server(found: McpToolList) -> None:
    """A server with all that would be started or reached: a yes is for each word of it."""
    server = found.server
    click.echo(legible(f"{server.name}: {server.transport}, {server.where}, from {server.source}"))
    for key, value in found.written.items():
        if value:
            click.echo(legible(f"  {key}: {_shown(value)}"))


def _show_changes(found: McpToolList) -> None:
    """Each field of a tool that is not as it was trusted, before and after, whole: a change hides at the end of a long text."""
    for tool in found.tools:
        if tool.state is McpState.NEW and tool.now is not None:
            click.echo(legible(f"\nnew: {tool.name}\n  {_shown(tool.now)}"))
        elif tool.state is McpState.CHANGED and tool.now is not None:
            before = tool.trusted or {}
            click.echo(legible(f"\nchanged: {tool.name}"))
            for key in sorted({*before, *tool.now}):
                if before.get(key) != tool.now.get(key):
                    click.echo(legible(f"  {key}"))
                    click.echo(legible(f"    - {_shown(before.get(key))}"))
                    click.echo(legible(f"    + {_shown(tool.now.get(key))}"))


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _text(found: JsonObject | None, key: str) -> str:
    value = (found or {}).get(key)
    return value if isinstance(value, str) else ""
