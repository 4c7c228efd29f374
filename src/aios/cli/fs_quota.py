"""`aios fs quota`: how much disk a folder may take."""

import re

import click

from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import short_size, write_json

UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

LARGEST_BYTES = 2**63 - 1


class Size(click.ParamType[int]):
    """A size such as 500MB, in bytes; -1 stands for `default`."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it, or refuse it as click does."""
        if value == "default":
            return -1
        found = re.fullmatch(r"(\d{1,12})(|kB|MB|GB|TB)", str(value))
        if found is None:
            self.fail(f"{value!r} is no size: say 500kB, 20MB, 4GB or default", param, ctx)
        return min(int(found[1]) * UNITS[found[2]], LARGEST_BYTES)


@click.command(
    epilog=examples("aios fs quota /agents/reader 200MB", "aios fs quota /agents/reader default")
)
@click.argument("path")
@click.argument("size", type=Size())
@json_option
def quota(*, path: str, size: int, as_json: bool) -> None:
    """Let PATH take SIZE of disk with all versions: an agent's folder with all that it starts, a group's, /shared or a mount."""
    quota_bytes = None if size < 0 else size
    with connect() as client:
        client.files.set_quota(path, quota_bytes)
    if as_json:
        write_json({"path": path, "quota_bytes": quota_bytes})
    else:
        may = "as much as any" if quota_bytes is None else short_size(quota_bytes)
        click.echo(f"{path} may take {may}")
