"""The verbs for a running kernel: info, guest, shutdown."""

from threading import Event
from time import monotonic

import click

from aios.abi.calls import KernelInfo
from aios.abi.types import EngineInfo, EngineState
from aios.cli.connecting import connect
from aios.cli.link import names_kernel
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, short_count, short_seconds, write_json
from aios.configload import load
from aios.errors import DeadlineExceeded
from aios.sdk.discovery import find_kernel, holds

POLL_S = 0.05
SHUTDOWN_GRACE_S = 10.0
"""On top of what the kernel gives its calls and programs to end."""


@click.command(epilog=examples("aios info", "aios info --json | jq .engines"))
@json_option
def info(*, as_json: bool) -> None:
    """Show the running kernel and its engines."""
    with connect() as client:
        about = client.info()
    if as_json:
        write_json(about)
        return
    for name, value in _rows(about):
        click.echo(f"{click.style(f'{name:<10}', bold=True)}{printable(value)}")


def _rows(about: KernelInfo) -> list[tuple[str, str]]:
    embedded = ", embedded in a command" if about.embedded else ""
    rows = [
        ("version", about.version),
        ("home", about.home),
        ("pid", f"{about.os_pid}{embedded}"),
        ("up", short_seconds(about.uptime_s)),
        *(("address", url) for url in about.urls),
        ("processes", str(about.n_processes)),
        ("calls", f"{about.n_calls}, {about.n_in_flight} in flight"),
    ]
    rows += [("engine", _described(engine)) for engine in about.engines]
    return rows + [("warning", warning) for warning in about.warnings]


def _described(engine: EngineInfo) -> str:
    usage = engine.usage
    tokens = (
        f"{counted(usage.prompt_tokens, 'token', is_short=True)} in ({short_count(usage.cached_tokens)} cached), "
        f"{short_count(usage.completion_tokens)} out"
    )
    is_up = engine.state is EngineState.READY
    parts = [
        f"{engine.name} ({engine.kind})" + ("" if is_up else f" is {engine.state.value}"),
        ", ".join((engine.model or "no model", *engine.aliases)),
        f"falls back on {', '.join(engine.fallback)}" if engine.fallback else "",
        f"{engine.window_tokens} tokens window" if engine.window_tokens else "",
        f"{engine.n_running} of {engine.n_slots} slots, {engine.n_queued} queued",
        tokens,
        " ".join(engine.capabilities),
        engine.note,
    ]
    return "; ".join(part for part in parts if part)


@click.command(epilog=examples("aios guest editor", "aios guest editor --json | jq -r .token"))
@click.argument("name")
@json_option
def guest(*, name: str, as_json: bool) -> None:
    """Make a guest process NAME, a third-party client, and print its token.

    The token is shown this once. What the client asks with it shows in `aios ps` under NAME; `aios stop` holds it and
    `aios kill` ends it.
    """
    with connect() as client:
        made = client.admit(name)
        urls = client.info().urls
    http_url = next((url for url in urls if url.startswith("http")), None)
    base_url = f"{http_url}/v1" if http_url else None
    if as_json:
        told = {"pid": made.pid, "name": made.name, "token": made.token, "urls": urls}
        write_json({**told, "openai_base_url": base_url})
        return
    click.echo(f"guest {made.name} ({made.pid}); its token is shown this once:\n\n  {made.token}\n")
    if base_url is None:
        click.echo("This kernel is embedded in a command and has no HTTP; `aios serve` has.")
        return
    click.echo("With an OpenAI client, in any language:\n")
    click.echo(f"  export OPENAI_BASE_URL={base_url}\n  export OPENAI_API_KEY={made.token}")


@click.command(epilog=examples("aios shutdown"))
@json_option
def shutdown(*, as_json: bool) -> None:
    """End the running kernel: calls in flight get a moment, programs are ended. Returns when it is gone."""
    loaded = load()
    before = None if names_kernel() else find_kernel(loaded.home.root)
    with connect() as client:
        client.shutdown()
    if before is not None:
        limits = loaded.config
        give_up_s = (
            monotonic() + limits.server.drain_s + limits.kernel.stop_grace_s + SHUTDOWN_GRACE_S
        )
        while holds(before, loaded.home.root):
            if monotonic() > give_up_s:
                raise DeadlineExceeded(
                    f"the kernel (pid {before.os_pid}) is still ending",
                    hint="see its log, or kill it",
                )
            Event().wait(POLL_S)
    if as_json:
        write_json({"done": "shutdown", "os_pid": before.os_pid if before else None})
    else:
        click.echo("the kernel has ended" if before else "the kernel is ending")
