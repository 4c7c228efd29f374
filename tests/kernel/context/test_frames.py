import pytest

from aios.kernel.context import frames
from aios.kernel.context.frames import Frames


def test_frames_are_taken_up_to_the_budget_and_reused() -> None:
    memory = Frames(page_bytes=16, n_max=3)
    taken = [memory.take() for _ in range(4)]
    assert taken == [0, 1, 2, None]
    memory.give_back(1)
    assert memory.n_free == 1
    assert memory.take() == 1


def test_each_frame_is_memory_of_its_own() -> None:
    page_bytes = frames.SLAB_BYTES // 2  # two frames a slab
    memory = Frames(page_bytes, n_max=3)
    for _ in range(3):
        frame = memory.take()
        assert frame is not None
        memory[frame][:2] = frame + 1
    assert [int(memory[frame][1]) for frame in range(3)] == [1, 2, 3]
    assert memory[0].nbytes == page_bytes


def test_without_memory_there_is_no_frame_and_later_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Frames(page_bytes=16, n_max=3)
    with monkeypatch.context() as patch:
        patch.setattr(frames, "SLAB_BYTES", 1 << 62)
        patch.setattr(memory, "page_bytes", 1 << 58)
        assert memory.take() is None
    assert memory.n_free == memory.n_allocated == 0
    assert memory.take() == 0
