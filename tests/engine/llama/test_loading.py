from pathlib import Path

import pytest

from aios.config import EngineConfig
from aios.engine.llama.binding import Model
from aios.engine.llama.loading import MAX_SCORES_BYTES, fingerprint, load, needs_flash
from aios.engine.llama.outbox import Outbox
from aios.errors import EngineUnavailable, ModelMissing

pytestmark = pytest.mark.anyio

SMALL = EngineConfig(n_slots=2, window_tokens=256, n_threads=1, prefill_chunk_tokens=64)


@pytest.mark.model
async def test_what_is_loaded_has_the_slots_and_the_window_of_the_configuration(
    model_path: Path,
) -> None:
    loaded = load(model_path, SMALL, Outbox())
    assert len(loaded.slots) == 2
    assert loaded.context.window_tokens == 256
    assert loaded.context.n_cells(0) == 0  # nothing is left of the warm-up
    assert loaded.note == ""
    loaded.free_contexts()
    loaded.model.close()


@pytest.mark.model
async def test_a_window_over_the_models_own_is_cut_and_said(model_path: Path) -> None:
    config = EngineConfig(n_slots=1, window_tokens=10_000, n_threads=1)
    loaded = load(model_path, config, Outbox())
    assert loaded.context.window_tokens == 8192
    assert "8192" in loaded.note
    loaded.free_contexts()
    loaded.model.close()


async def test_a_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing):
        load(tmp_path / "nothing.gguf", SMALL, Outbox())


@pytest.mark.model
async def test_the_model_is_freed_when_there_is_no_room_for_its_slots(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    close = Model.close

    def note_and_close(model: Model) -> None:
        closed.append(model.path)
        close(model)

    monkeypatch.setattr(Model, "close", note_and_close)
    with pytest.raises(EngineUnavailable, match="no room"):
        load(model_path, EngineConfig(n_slots=300, window_tokens=256, n_threads=1), Outbox())
    assert closed == [model_path]


@pytest.mark.model
async def test_cells_that_would_not_fit_into_memory_are_refused_before_they_are_made(
    model_path: Path,
) -> None:
    config = EngineConfig(n_slots=100_000, window_tokens=8192, n_threads=1)
    with pytest.raises(EngineUnavailable, match=r"take 188\d\d.\d GB, and \d+.\d GB are free"):
        load(model_path, config, Outbox())


@pytest.mark.model
def test_a_fingerprint_is_of_the_file_and_stays(model: Model) -> None:
    ours = fingerprint(model, "f16", flash=True)
    assert ours == fingerprint(model, "f16", flash=True) != fingerprint(model, "q8_0", flash=True)
    assert ours != fingerprint(model, "f16", flash=False)
    assert model.description in ours
    assert str(model.path.stat().st_size) in ours


@pytest.mark.parametrize(
    ("kv_type", "scores_bytes", "is_on_cpu", "expected"),
    [
        ("f16", 1 << 20, True, False),
        ("f16", MAX_SCORES_BYTES + 1, True, True),
        ("q8_0", 1 << 20, True, True),
        ("f16", 1 << 20, False, True),
    ],
)
def test_attention_is_plain_on_a_processor_that_has_room_for_the_scores(
    *, kv_type: str, scores_bytes: int, is_on_cpu: bool, expected: bool
) -> None:
    assert needs_flash(kv_type, scores_bytes=scores_bytes, is_on_cpu=is_on_cpu) is expected
