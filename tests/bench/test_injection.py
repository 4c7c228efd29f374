from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from aios.abi.access import Decision, Principal, Request
from aios.bench.bench import Settings
from aios.bench.injection import ATTACKS, BENCH, PROFILES, WORK
from aios.bench.injection_files import FILE_WAYS
from aios.bench.injection_ways import WAYS
from aios.bench.injection_world import open_world, play
from aios.bench.rows import Report
from aios.kernel.access.policy import Policies, Source

pytestmark = pytest.mark.anyio

ALL = Source("all", "permit(principal, action, resource);")


class Blind(Policies):
    """Policies that do not see the mark."""

    def decide(self, principals: Sequence[Principal], request: Request) -> Decision:
        return super().decide(principals, msgspec.structs.replace(request, is_tainted=False))


async def test_every_attack_is_stopped_and_all_harmless_work_passes_unasked() -> None:
    report, said = Report(BENCH.specs), list[str]()
    await BENCH.measure(Settings(quick=True, say=said.append), report)
    values = {row.row: row.value for row in report.rows}
    told = "\n".join(said)
    assert values["attacks-through"] == 0, told
    assert values["harmless-stopped"] == 0, told
    assert values["needless-questions"] == 0, told
    assert f"full: attacks stopped {len(ATTACKS)}/{len(ATTACKS)}" in said


def test_there_are_at_least_sixty_of_each_and_no_name_twice() -> None:
    assert len(PROFILES) == 2
    for scripts in (ATTACKS, WORK):
        assert len(scripts) >= 60
        assert len({script.name for script in scripts}) == len(scripts)


async def test_without_the_marks_the_attacks_get_through(tmp_path: Path) -> None:
    async with open_world(tmp_path, "full") as world:
        world.kernel.access.policies = Blind([ALL])
        score = await play(world, (*WAYS, *FILE_WAYS), is_attack=True)
    assert len(score.failed) == score.n_scripts
