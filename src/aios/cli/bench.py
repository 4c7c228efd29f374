"""The verb `bench`."""

from collections.abc import Sequence

import click

from aios.bench.main import run_bench
from aios.cli.options import examples, json_option


@click.command(
    epilog=examples("aios bench list", "aios bench syscalls startup", "aios bench --quick --json")
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "--quick", is_flag=True, help="Fewer repeats and smaller loads; the figures are rough."
)
@json_option
def bench(*, names: Sequence[str], quick: bool, as_json: bool) -> int:
    """Measure this machine against the bars; without NAME all of them, `list` shows what there is.

    Each row is measured against a baseline in the same run. The exit code is 1 when a row misses its bar.
    """
    return run_bench(names, quick=quick, json=as_json)
