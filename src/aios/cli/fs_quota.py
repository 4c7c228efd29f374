"""`aios fs quota`: how much disk a folder may take."""

import click

from aios.cli.connecting import connect
from aios.cli.options import Size, examples, json_option
from aios.cli.output import short_size, write_json

DEFAULT = -1


@click.command(
    epilog=examples("aios fs quota /agents/reader 200MB", "aios fs quota /agents/reader default")
)
@click.argument("path")
@click.argument("size", type=Size(words={"default": DEFAULT}))
@json_option
def quota(*, path: str, size: int, as_json: bool) -> None:
    """Let PATH take SIZE of disk with all versions: an agent's folder with all that it starts, a group's, /shared or a mount.

    SIZE is written as 4096, 500kB, 64MiB or 1.5GB; `default` is what `storage.quota_bytes` says.
    """
    quota_bytes = None if size == DEFAULT else size
    with connect() as client:
        client.files.set_quota(path, quota_bytes)
    if as_json:
        write_json({"path": path, "quota_bytes": quota_bytes})
    else:
        may = "as much as any" if quota_bytes is None else short_size(quota_bytes)
        click.echo(f"{path} may take {may}")
