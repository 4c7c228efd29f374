"""The verb `bench`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from msgspec.structs import replace

from aios.bench.bench import Bench, Shape
from aios.bench.main import run_bench
from aios.bench.memory import NAME as MEMORY
from aios.bench.memory import bench_of as memory_of
from aios.bench.paper import NAME as PAPER
from aios.bench.paper import bench_of as paper_of
from aios.bench.sched_sim import ALL
from aios.bench.sched_sim import NAME as SCHED_SIM
from aios.bench.sched_sim import bench_of as sched_sim_of
from aios.bench.sim import NAME as SIM
from aios.bench.sim import bench_of as sim_of
from aios.bench.storage import NAME as STORAGE
from aios.bench.storage import bench_of as storage_of
from aios.bench.workload import NAME as WORKLOAD
from aios.bench.workload import bench_of as workload_of
from aios.cli.options import examples, json_option


@click.command(
    epilog=examples(
        "aios bench list",
        "aios bench syscalls startup",
        "aios bench --quick --json",
        "aios bench workload --agents 32",
        "aios bench sched-sim --policy mlfq --trace crowd.jsonl",
        "aios bench paper --plots plots",
        "aios bench sim --seeds 20000",
        "aios bench storage memory --kills 1000",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "--quick", is_flag=True, help="Fewer repeats and smaller loads; the figures are rough."
)
@click.option(
    "--agents", "n_agents", type=click.IntRange(1, 4096), help="Agents of `workload`: 16."
)
@click.option("--turns", "n_turns", type=click.IntRange(1, 1000), help="Turns of each: 3.")
@click.option("--max-tokens", type=click.IntRange(1, 4096), help="Tokens of each turn: 24.")
@click.option(
    "--head-rules",
    "n_rules",
    type=click.IntRange(0, 1000),
    help="Rules of 28 tokens in the head that all share: 12.",
)
@click.option("--policy", help="The policy that `sched-sim` runs: all.")
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recorded trace that `sched-sim` replays, instead of its workloads.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for the plots of `paper`, as SVG; needs the extra `bench`.",
)
@click.option("--seeds", "n_seeds", type=click.IntRange(1), help="Seeds of `sim`: 200.")
@click.option(
    "--kills",
    "n_kills",
    type=click.IntRange(1),
    help="Kills, and losses of power, of `storage` and of `memory`: 10.",
)
@json_option
def bench(
    *,
    names: Sequence[str],
    quick: bool,
    policy: str | None,
    trace: Path | None,
    plots: Path | None,
    n_seeds: int | None,
    n_kills: int | None,
    as_json: bool,
    **sizes: int | None,
) -> int:
    """Measure this machine against the bars; without NAME all of them, `list` shows what there is.

    Each row is measured against a baseline in the same run. The exit code is 1 when a row misses its bar.
    """
    shape = _shape(names, sizes)
    variants = {
        **_variants(names, policy, trace),
        **_plotting(names, plots),
        **_simulating(names, n_seeds),
        **_crashing(names, n_kills),
        **({WORKLOAD: workload_of(shape)} if shape else {}),
    }
    return run_bench(names, quick=quick, json=as_json, shape=shape, variants=variants)


def _variants(names: Sequence[str], policy: str | None, trace: Path | None) -> Mapping[str, Bench]:
    """`sched-sim` as the options ask for it.

    Raises:
        UsageError: They are given and `sched-sim` will not be run.
    """
    if policy is None and trace is None:
        return {}
    if names and SCHED_SIM not in names:
        message = f"--policy and --trace are for the bench `{SCHED_SIM}`"
        raise click.UsageError(message, click.get_current_context())
    return {SCHED_SIM: sched_sim_of(policy or ALL, trace)}


def _plotting(names: Sequence[str], plots: Path | None) -> Mapping[str, Bench]:
    """`paper` with its plots.

    Raises:
        UsageError: They are asked for and `paper` will not be run.
    """
    if plots is None:
        return {}
    if names and PAPER not in names:
        raise click.UsageError(f"--plots is for the bench `{PAPER}`", click.get_current_context())
    return {PAPER: paper_of(plots)}


def _simulating(names: Sequence[str], n_seeds: int | None) -> Mapping[str, Bench]:
    """`sim` with so many seeds.

    Raises:
        UsageError: They are given and `sim` will not be run.
    """
    if n_seeds is None:
        return {}
    if names and SIM not in names:
        raise click.UsageError(f"--seeds is for the bench `{SIM}`", click.get_current_context())
    return {SIM: sim_of(n_seeds)}


def _crashing(names: Sequence[str], n_kills: int | None) -> Mapping[str, Bench]:
    """`storage` and `memory` with so many kills.

    Raises:
        UsageError: They are given and none of the two will be run.
    """
    if n_kills is None:
        return {}
    if names and not {STORAGE, MEMORY} & set(names):
        message = f"--kills is for the benches `{STORAGE}` and `{MEMORY}`"
        raise click.UsageError(message, click.get_current_context())
    return {STORAGE: storage_of(n_kills), MEMORY: memory_of(n_kills)}


def _shape(names: Sequence[str], sizes: dict[str, int | None]) -> Shape | None:
    """The size of `workload`; None leaves it to the bench.

    Raises:
        UsageError: A size is given and `workload` will not be run.
    """
    given = {name: size for name, size in sizes.items() if size is not None}
    if given and names and WORKLOAD not in names:
        raise click.UsageError(f"sizes are for the bench `{WORKLOAD}`", click.get_current_context())
    return replace(Shape(), **given) if given else None
