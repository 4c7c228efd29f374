import pytest
from msgspec.structs import replace

from aios.abi.types import Sampling
from aios.bench import interruptions
from aios.bench.interruptions import Way, cases, jobs, left_alone, open_rig
from aios.config import EngineConfig


def test_two_hundred_cases_hold_every_quantum_way_and_kind_of_job() -> None:
    chosen = cases(200)
    assert {case.quantum for case in chosen} == set(range(1, 33))
    assert {case.way for case in chosen} == set(Way)
    assert {case.kind for case in chosen} == set(range(len(jobs())))
    seen = {
        (case.way, case.job.sampling.temperature > 0, case.job.constraint is None)
        for case in chosen
    }
    assert len(seen) == len(Way) * 4, "each way with greedy and sampled, free and under a grammar"


@pytest.mark.model
@pytest.mark.anyio
@pytest.mark.no_cover
async def test_interrupted_generations_come_out_the_same_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interruptions, "MAX_TOKENS", 12)
    config = EngineConfig(kind="llama", n_slots=2, window_tokens=512, n_threads=1)
    chosen = [
        replace(case, quantum=quantum)
        for case, quantum in zip(cases(100)[::21], (1, 2, 3, 5, 9), strict=True)
    ]
    assert {case.way for case in chosen} == set(Way)
    kinds = {(c.job.sampling.temperature > 0, c.job.constraint is None) for c in chosen}
    assert len(kinds) == 4, "greedy and sampled, free and under a grammar; all 200 are the bench's"
    async with open_rig(config) as rig:
        expected = await left_alone(rig, chosen)
        for case in chosen:
            assert await rig.run_interrupted(case) == expected[case.kind], case
        assert rig.n_interruptions > len(chosen)
        assert rig.n_recomputed_tokens == 0
        sampled = next(
            kind
            for kind in expected
            if jobs()[kind].sampling.temperature > 0 and jobs()[kind].constraint is None
        )
        other = replace(jobs()[sampled], sampling=Sampling(temperature=0.9, seed=8))
        assert await rig.run(other) != expected[sampled], "another seed comes out otherwise"
