"""The verbs `fs mount`, `fs umount` and `fs mounts`: real folders of this machine among the files of agents."""

from pathlib import Path

import click

from aios.abi.mounts import MountInfo
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import Column, printable, write_json, write_table

N_SHOWN = 5


@click.command(
    epilog=examples(
        "aios fs mount ~/notes /notes",
        "aios fs mount --read-only ~/papers /papers",
        "aios fs share /notes /agents/ann --access write",
    )
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.argument("path")
@click.option("--read-only", is_flag=True, help="Agents may read it, and never write.")
@click.option("--no-wait", is_flag=True, help="Return before all files have been read.")
@json_option
def mount(*, folder: str, path: str, read_only: bool, no_wait: bool, as_json: bool) -> None:
    """Show FOLDER of this machine as PATH (/NAME). Agents see it when you share it with them; `aios fs share`."""
    with connect() as client:
        info = client.files.mount(
            str(Path(folder).resolve()), path, is_read_only=read_only, is_waiting=not no_wait
        )
    if as_json:
        write_json(info)
    else:
        _show([info])


@click.command(epilog=examples("aios fs umount /notes"))
@click.argument("path")
@json_option
def umount(*, path: str, as_json: bool) -> None:
    """Take a mount away. The real folder stays as it is."""
    with connect() as client:
        info = client.files.umount(path)
    if as_json:
        write_json(info)
    else:
        click.echo(f"{info.path} is no longer {info.folder}")


@click.command(epilog=examples("aios fs mounts", "aios fs mounts --json | jq .skipped"))
@json_option
def mounts(*, as_json: bool) -> None:
    """List the mounts, how far they are read, and what in them is not shown."""
    with connect() as client:
        found = client.files.mounts()
    if as_json:
        for info in found:
            write_json(info)
    else:
        _show(found)


def _show(found: "list[MountInfo] | tuple[MountInfo, ...]") -> None:
    columns = [Column("PATH"), Column("FOLDER"), Column("ACCESS"), Column("STATE")]
    columns += [Column("FILES", is_number=True), Column("NOT SHOWN", is_number=True)]
    rows = [
        [
            info.path,
            printable(info.folder),
            "read" if info.is_read_only else "write",
            _state(info),
            str(info.n_files),
            str(info.n_skipped),
        ]
        for info in found
    ]
    write_table(columns, rows)
    for info in found:
        if info.note:
            click.echo(f"{info.path}: {printable(info.note)}")
        for each in info.skipped[:N_SHOWN]:
            click.echo(f"not shown: {printable(each.path)}: {printable(each.why)}")


def _state(info: MountInfo) -> str:
    if not info.is_settled:
        return "reading"
    return "watched" if info.is_watched else "scanned"
