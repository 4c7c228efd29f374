"""The `engine` bench: what it reads from the tool, and that both sides do the same work."""

import pytest

from aios.bench.engine import (
    N_PROMPT,
    SPECS,
    WIDTHS,
    Figures,
    _prompts,
    _report_all,
    _tool_rows,
    _wall_s,
)
from aios.bench.rows import Report
from aios.config import EngineConfig
from aios.configload import load
from aios.engine.opening import open_engine

LINE = (
    '{"n_kv_max": 4096, "n_batch": 256, "n_ubatch": 256, "flash_attn": 1, "is_pp_shared": 0, "n_gpu_layers": -1, '
    '"n_threads": 2, "n_threads_batch": 2, "pp": 256, "tg": 64, "pl": 4, "n_kv": 1280, "t_pp": 3.4, "speed_pp": 301.2, '
    '"t_tg": 1.3, "speed_tg": 196.9, "t": 4.7, "speed": 272.3}'
)


def test_the_tools_lines_are_found_among_its_other_output() -> None:
    (row,) = _tool_rows(f"llama_context: n_ctx = 4096\n\n{LINE}\n\nllama_perf_context_print: ...\n")
    assert (row.pl, row.speed_pp, row.speed_tg, row.speed) == (4, 301.2, 196.9, 272.3)


def test_prompts_differ_from_their_first_words() -> None:
    made = [prompt for n in WIDTHS for seed in range(6) for prompt in _prompts(n, seed)]
    assert {len(prompt.split()) for prompt in made} == {N_PROMPT}
    assert len({tuple(prompt.split()[:16]) for prompt in made}) == len(made)


def _figures(rate: float) -> Figures:
    figures = Figures()
    for n in WIDTHS:
        figures.add(n, total=rate, prefill=rate, decode=rate)
    return figures


def test_rates_are_compared_row_by_row() -> None:
    report = Report(SPECS)
    _report_all(report, _figures(95.0), _figures(100.0), note="")
    assert {(row.ratio, row.ok) for row in report.rows} == {(0.95, True)}
    assert len(report.rows) == len(SPECS) == 9


def test_without_the_tool_no_row_is_ok_and_each_says_why() -> None:
    report = Report(SPECS)
    _report_all(report, _figures(95.0), Figures(), note="it is not built")
    assert {(row.value, row.ok, row.note) for row in report.rows} == {
        (95.0, False, "it is not built")
    }


@pytest.mark.model
@pytest.mark.anyio
async def test_the_default_model_sees_as_many_tokens_as_the_tool() -> None:
    config = EngineConfig(kind="llama", n_slots=2, window_tokens=512)
    engine = open_engine("bench", config, load().home)
    await engine.start()
    try:
        assert (
            await _wall_s(engine, _prompts(2, 0), 3) > 0
        )  # fails unless the counts are as asked for
    finally:
        await engine.aclose()
