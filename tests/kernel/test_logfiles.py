import os
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aios.abi.types import Pid
from aios.kernel.logfiles import LogFiles
from aios.kernel.logs import LogBuffer

pytestmark = pytest.mark.anyio
PID = Pid(7)


def files(folder: Path, max_bytes: int = 1 << 20) -> LogFiles:
    found = LogFiles(folder / "logs", max_bytes, lambda _, text: text.replace("secret", "[hidden]"))
    found.load()
    return found


def say(log: LogBuffer, *texts: str) -> None:
    for text in texts:
        log.write(text, stream="out", unix_s=1.0)


async def all_of(log: LogBuffer) -> list[str]:
    earlier, number, _ = await log.read_earlier(0)
    return [line.text for line in (*earlier, *log.read(number)[0])]


async def test_a_log_goes_on_under_the_next_kernel_without_what_is_secret(tmp_path: Path) -> None:
    one = files(tmp_path)
    say(one.open(PID), "a", "the secret")
    await one.flush()
    two = files(tmp_path)
    log = two.open(PID)
    say(log, "c")
    assert await all_of(log) == ["a", "the [hidden]", "c"]
    assert log.tail(1) == 2
    assert log.tail(2) == 1
    assert "secret" not in (tmp_path / "logs" / "7.log").read_text()
    assert (tmp_path / "logs" / "7.log").stat().st_mode & 0o777 == 0o600


async def test_a_torn_line_is_passed_over_and_the_next_is_whole(tmp_path: Path) -> None:
    one = files(tmp_path)
    say(one.open(PID), "a", "b")
    await one.flush()
    path = tmp_path / "logs" / "7.log"
    os.truncate(path, path.stat().st_size - 4)
    two = files(tmp_path)
    log = two.open(PID)
    say(log, "c")
    await two.flush()
    assert await all_of(files(tmp_path).open(PID)) == ["a", "c"]


@example(["\x1e\x1e\r0"], 400)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=60), st.integers(400, 4_000))
async def test_two_files_hold_the_last_lines_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], max_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    one = files(folder, max_bytes)
    log = one.open(PID)
    said = [line for text in texts for line in text.splitlines() or [""]]
    for line in said:  # one at a time: what waits for the disk is bounded, too
        say(log, line)
        await one.flush()
    there = [path.stat().st_size for path in (folder / "logs").iterdir()]
    longest = 6 * 300 + 200
    assert sum(there) <= max_bytes + 2 * longest
    kept = await all_of(files(folder, max_bytes).open(PID))
    assert kept == said[len(said) - len(kept) :]
    assert kept


async def test_a_log_goes_with_its_process(tmp_path: Path) -> None:
    one = files(tmp_path)
    for number in (7, 8):
        say(one.open(Pid(number)), "a")
    one.forget(Pid(8))
    await one.flush()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["7.log"]
    two = files(tmp_path)
    two.sweep([])
    await two.flush()
    assert not list((tmp_path / "logs").iterdir())


async def test_lines_are_written_soon_and_at_the_end(tmp_path: Path) -> None:
    one = files(tmp_path)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.run)
            log = one.open(PID)
            say(log, "a")
            while not (tmp_path / "logs" / "7.log").exists():
                await anyio.sleep(0.01)
            say(log, "b")
            tasks.cancel_scope.cancel()
    assert await all_of(files(tmp_path).open(PID)) == ["a", "b"]


async def test_what_waits_for_a_slow_disk_is_bounded_and_what_is_missing_is_told(
    tmp_path: Path,
) -> None:
    one = files(tmp_path, max_bytes=2_000)
    log = one.open(PID)
    say(log, *(f"{number} {'x' * 20}" for number in range(1_000)))
    assert sum(len(each.lines) for each in one._pending.values()) < 20
    await one.flush()
    (first, *rest) = [line.text for _, line in await one.read(PID, 0, 1_000)]
    assert first == f"{1_000 - len(rest)} lines are missing here: the disk took them too slowly"
    assert [text.split()[0] for text in rest] == [str(n) for n in range(1_000 - len(rest), 1_000)]
    assert len(rest) > 3
