"""The verbs for model files: pull and models."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

from aios.cli.exits import Outcomes
from aios.cli.options import examples, json_option
from aios.cli.output import Column, printable, short_count, short_size, write_json, write_table
from aios.cli.top import make_console
from aios.config import Home
from aios.configload import load
from aios.engine.models import (
    SUFFIX,
    ModelFile,
    Progress,
    check_model,
    find_model,
    list_models,
    remove_model,
)
from aios.engine.models import (
    pull as pull_model,
)

DONE = "done"
LINE_EVERY_S = 5.0
"""How often a download without a terminal says how far it is."""

COLUMNS = (
    Column("NAME"),
    Column("SIZE", is_number=True),
    Column("PARAMS", is_number=True),
    Column("QUANT"),
    Column("WINDOW", is_number=True),
    Column("STATE"),
)


@click.command(
    epilog=examples(
        "aios pull",
        "aios pull ~/Downloads/model.gguf",
        "aios pull hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf",
    )
)
@click.argument("model", default="")
@click.option("--allow-http", is_flag=True, help="Permit plain http to other machines.")
@json_option
def pull(*, model: str, allow_http: bool, as_json: bool) -> None:
    """Fetch MODEL into the store: the default one, a name, a path, a URL or hf:OWNER/REPO/FILE.

    Its checksum is verified where one is known. A download that broke off goes on where it was.
    """
    path = fetch(model, load().home, as_json=as_json, allow_http=allow_http)
    if as_json:
        write_json({"stage": DONE, "path": str(path)})
    else:
        click.echo(str(path))


def fetch(model: str, home: Home, *, as_json: bool, allow_http: bool = False) -> Path:
    """Pull a model and show how far it is; returns its path."""
    with _shown_progress(as_json=as_json) as progress:
        return anyio.run(partial(pull_model, model, home, progress=progress, allow_http=allow_http))


@contextmanager
def _shown_progress(*, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line now and then without one, JSON if asked for."""
    console = make_console(is_error=True)
    if as_json or not console.is_terminal:
        yield _Lines(as_json=as_json)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        stage = ""

        def draw(progress: Progress) -> None:
            nonlocal stage
            if progress.stage != stage:
                stage = progress.stage
                bar.reset(task)
            text = f"{progress.stage} {printable(progress.note)}".rstrip()
            bar.update(
                task, description=text, completed=progress.done_bytes, total=progress.total_bytes
            )

        yield draw


class _Lines:
    """Progress as lines: one a stage, and one every few seconds within it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._stage = ""
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.stage == self._stage and monotonic() < self._next_s:
            return
        self._stage, self._next_s = progress.stage, monotonic() + LINE_EVERY_S
        if self._as_json:
            if progress.stage != DONE:  # the last line, with the path, is the caller's
                write_json(progress)
            return
        size = f" {short_size(progress.done_bytes)}" if progress.done_bytes else ""
        of = f" of {short_size(progress.total_bytes)}" if size and progress.total_bytes else ""
        note = f" {printable(progress.note)}" if progress.note else ""
        click.echo(f"{progress.stage}{size}{of}{note}", err=True)


@click.group(
    invoke_without_command=True,
    epilog=examples("aios models", "aios models check", "aios models rm qwen2.5-0.5b"),
)
@json_option
@click.pass_context
def models(ctx: click.Context, *, as_json: bool) -> None:
    """List, check and remove model files. Alone it lists them."""
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@models.command()
@json_option
def ls(*, as_json: bool) -> None:
    """List the models of the store."""
    _list(as_json=as_json)


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def rm(*, names: Sequence[str], as_json: bool) -> int:
    """Delete models from the store."""
    home = load().home
    outcomes = Outcomes(as_json=as_json)
    for name in names:
        with outcomes.each():
            path = remove_model(name, home)
            if as_json:
                write_json({"name": name, "removed": str(path)})
            else:
                click.echo(f"removed {path}")
    return outcomes.code


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@json_option
def check(*, names: Sequence[str], as_json: bool) -> int:
    """Read model files whole and compare them with their checksums; all of the store without NAME."""
    home = load().home
    outcomes = Outcomes(as_json=as_json)
    paths = []
    for name in names:
        with outcomes.each():
            paths.append(find_model(name, home))
    if not names:
        paths = [model.path for model in list_models(home) if model.path.suffix == SUFFIX]
    for path in paths:
        with outcomes.each():
            model = check_model(path, checksum=True)
            if as_json:
                write_json(_as_json(model))
            else:
                click.echo(f"{model.name}: ok")
    return outcomes.code


def _list(*, as_json: bool) -> None:
    home = load().home
    found = list_models(home)
    if as_json:
        for model in found:
            write_json(_as_json(model))
        return
    if not found:
        click.echo(f"no models in {home.models}; `aios pull` fetches the default one", err=True)
        return
    write_table(COLUMNS, [_row(model) for model in found])


def _row(model: ModelFile) -> list[str]:
    state = "ok" if model.ok else click.style("bad", fg="red")
    return [
        model.name,
        short_size(model.size_bytes),
        short_count(model.n_params) if model.n_params else "-",
        model.quantisation or "-",
        short_count(model.context_tokens) if model.context_tokens else "-",
        f"{state} {printable(model.note)}".rstrip(),
    ]


def _as_json(model: ModelFile) -> dict[str, object]:
    return {
        "name": model.name,
        "path": str(model.path),
        "size_bytes": model.size_bytes,
        "sha256": model.sha256,
        "ok": model.ok,
        "note": model.note,
        "architecture": model.architecture,
        "n_params": model.n_params,
        "quantisation": model.quantisation,
        "context_tokens": model.context_tokens,
    }
