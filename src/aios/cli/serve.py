"""The verb `serve`: the kernel as a daemon, in this terminal or in the background."""

import os
from collections.abc import Mapping, Sequence

import click

from aios.cli.background import start_daemon, tell_failed, tell_ready
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import write_json
from aios.cli.readiness import check_engine
from aios.configload import Loaded, load
from aios.errors import AiosError, ConfigError
from aios.sdk.discovery import find_kernel

FLAGS: Mapping[str, str] = {
    "host": "server.host",
    "port": "server.port",
    "engine": "engine.kind",
    "model": "engine.model",
    "base_url": "engine.base_url",
    "slots": "engine.n_slots",
    "window_tokens": "engine.window_tokens",
    "threads": "engine.n_threads",
}
"""Which knob each flag sets."""


@click.command(
    epilog=examples(
        "aios serve",
        "aios serve --detach --port 8500",
        "aios serve --model ~/models/qwen.gguf --slots 4",
        "OPENAI_API_KEY=... aios serve --base-url https://api.example.com/v1 --model big",
    )
)
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port; 0 picks a free one.")
@click.option("--engine", help="auto, llama, openai, scripted or none.")
@click.option(
    "--model", help="A name of `aios models`, a path to a GGUF, or the endpoint's name for it."
)
@click.option("--base-url", help="An OpenAI-compatible endpoint.")
@click.option("--slots", type=int, help="Generations at once.")
@click.option("--window-tokens", type=int, help="Prompt and output of one generation.")
@click.option("--threads", type=int, help="Threads of the embedded engine.")
@click.option(
    "-d", "--detach", is_flag=True, help="Serve in the background; return when calls are taken."
)
@click.option("--ready-fd", type=int, hidden=True)
@json_option
def serve(*, detach: bool, ready_fd: int | None, as_json: bool, **flags: str | int | None) -> None:
    """Run the kernel for everybody who shares AIOS_HOME, until Ctrl-C, SIGTERM or `aios shutdown`.

    It listens on a Unix socket and on loopback TCP, where it also speaks the OpenAI API. One kernel serves one AIOS_HOME.
    Every flag is a knob of the configuration; `aios config` explains them.
    """
    try:
        loaded = load(flags={FLAGS[name]: value for name, value in flags.items()})
        check_engine(loaded, may_ask=not as_json)
        if detach:
            _serve_in_background(loaded, flags, as_json=as_json)
        else:
            _serve_here(loaded, ready_fd, as_json=as_json)
    except AiosError as error:
        tell_failed(ready_fd, error)
        raise


def _serve_in_background(
    loaded: Loaded, flags: Mapping[str, str | int | None], *, as_json: bool
) -> None:
    words = [
        f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None
    ]
    log = start_daemon(loaded.home, words)
    address = find_kernel(loaded.home.root)
    if address is None:
        raise ConfigError(f"the daemon ended at once; see {log}", hint=f"cat {log}")
    if as_json:
        write_json(
            {"event": "ready", "os_pid": address.os_pid, "urls": address.urls, "log": str(log)}
        )
    else:
        click.echo(
            f"serving {loaded.home.root} in the background (pid {address.os_pid}, log {log})"
        )
        _tell_addresses(address.urls)
        with connect() as client:
            _tell_warnings(client.info().warnings)


def _serve_here(loaded: Loaded, ready_fd: int | None, *, as_json: bool) -> None:
    import anyio  # noqa: PLC0415 - start-up time: with --detach only the daemon itself needs the server

    from aios.kernel.kernel import Kernel  # noqa: PLC0415
    from aios.server.daemon import serve as serve_kernel  # noqa: PLC0415

    def on_ready(kernel: Kernel) -> None:
        if as_json:
            write_json({"event": "ready", "os_pid": os.getpid(), "urls": kernel.urls})
        else:
            click.echo(f"serving {loaded.home.root} (Ctrl-C ends it)")
            _tell_addresses(kernel.urls)
            click.echo(
                f"  token: in {loaded.home.token_file}; `aios guest NAME` makes one for a client"
            )
            _tell_warnings(kernel.warnings)
        tell_ready(ready_fd)

    async def run() -> None:
        await serve_kernel(loaded, on_ready=on_ready)

    anyio.run(run, backend_options={"use_uvloop": True})
    click.echo("stopped", err=True)


def _tell_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)


def _tell_addresses(urls: tuple[str, ...] | list[str]) -> None:
    for url in urls:
        suffix = "/v1 speaks the OpenAI API" if url.startswith("http") else ""
        click.echo(f"  {url}{suffix}")
