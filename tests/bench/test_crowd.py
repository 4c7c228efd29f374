"""Idle processes take little memory."""

import pytest

from aios.bench.crowd import bytes_each, main


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["guests", "tasks"])
async def test_an_idle_process_takes_at_most_thirty_kilobytes(kind: str) -> None:
    assert await bytes_each(kind, 2_000) <= 30_000


def test_the_command_prints_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["guests", "1000"])
    assert 0 <= int(capsys.readouterr().out) <= 30_000
