from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import anyio.to_thread
import pytest

from aios.abi.gate import Advance, Progress
from aios.kernel.storage.advances import EVERY_S, reporter, silent

if TYPE_CHECKING:
    from aios.kernel.clock import Clock
    from aios.kernel.process import Run

pytestmark = pytest.mark.anyio


class HandClock:
    now = 0.0

    def now_s(self) -> float:
        return self.now

    def unix_s(self) -> float:
        return self.now


@dataclass
class Emitting:
    """As much of a run as a reporter uses."""

    frames: list[Progress]

    def emit(self, frame: Progress) -> None:
        self.frames.append(frame)


async def test_advances_are_told_now_and_then_and_at_the_end() -> None:
    frames: list[Progress] = []
    clock = HandClock()
    report = reporter(cast("Run", Emitting(frames)), cast("Clock", clock))

    def work() -> None:
        for number in range(1, 101):
            clock.now += EVERY_S / 50
            report("blobs", number, 100)

    await anyio.to_thread.run_sync(work)
    assert frames[0] == Advance("blobs", 1, 100)
    assert frames[-1] == Advance("blobs", 100, 100)
    assert len(frames) < 6
    silent("blobs", 1, None)
