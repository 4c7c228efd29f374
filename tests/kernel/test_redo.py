"""What programs find again in their contexts when they are replayed."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from aios.abi.calls import Spawned
from aios.abi.contexts import Compacted, ContextCompact
from aios.abi.fork import Fork
from aios.abi.recovery import Restart, RestartPolicy
from aios.config import Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.engine.scripted import ScriptedEngine
from aios.kernel.conversations import Conversations
from aios.kernel.process import Run
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client
from aios.sdk.requests import build
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio

WINDOW_TOKENS = 640
HEAD = """
import os
from pathlib import Path
from aios.sdk.blocking import connect

def crash_once():
    here = Path("here")
    if not here.exists():
        here.touch()
        os._exit(3)

with connect() as client:
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("p") as folder:
        yield folder


@asynccontextmanager
async def booted(home: Path) -> AsyncIterator[Client]:
    config = Config(engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0))
    loaded = Loaded(config, Home(home), home / "config.toml")
    engines = {"local": ScriptedEngine(window_tokens=WINDOW_TOKENS)}
    with anyio.fail_after(60):
        async with open_server(loaded, http=False, engines=engines, is_durable=True) as kernel:
            yield Client(kernel.init_gate())
            kernel.check_invariants()


async def end_of(home: Path, client: Client, source: str, *args: str) -> tuple[str, str]:
    """The result of a program that crashes once, and its log."""
    for name in ("agent", "work"):
        (home / name).mkdir()
    (home / "agent" / "agent.toml").write_text('name = "agent"\n')
    (home / "agent" / "main.py").write_text(HEAD + source)
    once = Restart(policy="on-failure", delay_s=0.01, max_restarts=1)
    spawned = await client.spawn(str(home / "agent"), *args, restart=once, cwd=home / "work")
    end = (await client.wait(spawned.pid)).exit
    async with client.logs(spawned.pid) as lines:
        said = "\n".join([line.text async for line in lines])
    assert end.status == 0, said
    assert "is where it was" in said
    return end.result, said


async def begun(
    home: Path, client: Client, source: str, policy: RestartPolicy = "on-failure"
) -> Spawned:
    """A program that has written its first line into its log."""
    for name in ("agent", "work"):
        (home / name).mkdir()
    (home / "agent" / "agent.toml").write_text('name = "agent"\n')
    (home / "agent" / "main.py").write_text(HEAD + source)
    restart = Restart(policy=policy, delay_s=0.01)
    spawned = await client.spawn(str(home / "agent"), restart=restart, cwd=home / "work")
    async with client.logs(spawned.pid, follow=True) as lines:
        async for line in lines:
            if line.stream == "log":
                break
    return spawned


SHORTENED = """
    import sys
    context = client.contexts.open(system="Be brief.", window=sys.argv[1])
    for number in range(16):
        context.append(f"Pinned {number}.", is_pinned=True) if number in {1, 4} else None
        context.chat(f"Turn {number}. " + "A word. " * 20, max_tokens=8)
        context.compact(target_tokens=240) if number in {5, 9} else None
        context.undo() if number == 9 else None
    assert len(context.stat().compactions) > 1
    before = context.messages(), context.stat().compactions, context.stat().n_pages
    crash_once()
    after = context.messages(), context.stat().compactions, context.stat().n_pages
    assert after == before, f"{after} is not {before}"
    client.exit(0, f"{len(context.fault(1)) if before[2] else 0} messages paged out")
"""


@pytest.mark.parametrize("window", ["drop-oldest", "summarise", "page-to-memory"])
async def test_what_left_a_window_has_left_it_again(home: Path, window: str) -> None:
    async with booted(home) as client:
        result, _ = await end_of(home, client, SHORTENED, window)
    assert result.startswith("0 ") == (window != "page-to-memory")


COMPACTED = """
    context = client.contexts.open(system="Be brief.")
    for number in range(6):
        context.chat(f"Turn {number}. " + "A word. " * 20, max_tokens=8)
    context.compact(target_tokens=240)
    crash_once()
    client.exit(0)
"""


async def test_what_an_earlier_version_did_not_write_down_is_missed_aloud(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact = Conversations.compact

    async def compact_before(self: Conversations, run: Run, call: ContextCompact) -> Compacted:
        return msgspec.structs.replace(await compact(self, run, call), cut=None)

    monkeypatch.setattr(Conversations, "compact", compact_before)
    async with booted(home) as client:
        _, said = await end_of(home, client, COMPACTED)
    assert "what call 8 (context_compact) did is not there again" in said


BACK_IN = """
    context = client.contexts.open(system="Be brief.", window="page-to-memory")
    n_turns = 0
    while not context.stat().n_pages:
        n_turns += 1
        context.chat(f"Turn {n_turns}. " + "A word. " * 20, max_tokens=8)
    context.fault(1)
    context.fault(1, is_restoring=True)
    before = context.messages()
    crash_once()
    assert context.messages() == before
    client.exit(0)
"""


async def test_a_page_that_a_chat_cut_out_comes_back_again(home: Path) -> None:
    async with booted(home) as client:
        await end_of(home, client, BACK_IN)


PUT_AWAY = """
    context = client.contexts.open(system="Be brief.")
    context.chat("one")
    context.snapshot("text")
    other = client.contexts.restore("text")
    other.chat("two")
    other.snapshot("text", is_replacing=True)
    third = client.contexts.restore("text")
    client.contexts.forget("text")
    before = other.messages(), third.messages()
    crash_once()
    assert (other.messages(), third.messages()) == before
    client.exit(0, other.chat("three").text)
"""


async def test_a_snapshot_that_was_replaced_and_forgotten_since_is_restored_as_it_was(
    home: Path,
) -> None:
    async with booted(home) as client:
        result, _ = await end_of(home, client, PUT_AWAY)
    assert "three" in result


GONE_ON = """
    context = client.contexts.restore("diary")
    for day in range(3):
        context.chat(f"day {day}")
        context.snapshot("diary", is_replacing=True)
    before = context.messages()
    crash_once()
    assert context.messages() == before
    client.exit(0, f"{len(before)}")
"""


async def test_who_puts_away_again_what_it_took_from_the_shelf_comes_back_with_it(
    home: Path,
) -> None:
    async with booted(home) as client:
        diary = await client.contexts.open(system="Be brief.")
        await diary.chat("day before")
        await diary.snapshot("diary")
        result, _ = await end_of(home, client, GONE_ON)
    assert result == "9"


PIECES = """
    def pieces():
        yield b"a" * 100_000
        yield b"b" * 100_000
        crash_once()
        yield b"c"
    client.files.upload("/shared/long", pieces())
    client.exit(0, f"{len(client.files.read('/shared/long'))}")
"""


async def test_a_content_that_comes_in_pieces_has_each_once(home: Path) -> None:
    async with booted(home) as client:
        result, _ = await end_of(home, client, PIECES)
    assert result == "200001"


TWO_DRAFTS = """
    import time
    from aios.abi.storage import FileDraft, Put
    from aios.sdk.requests import build
    draft = client.gate.call(build(FileDraft, data=b"a" * 100_000)).value.draft
    client.log("begun")
    while not Path("go").exists():
        time.sleep(0.02)
    client.gate.call(build(FileDraft, data=b"b", draft=draft))
    client.files.edit([Put("long", draft=draft)])
    client.exit(0)
"""


async def test_a_fork_adds_to_a_draft_of_its_own(home: Path) -> None:
    async with booted(home) as client:
        spawned = await begun(home, client, TWO_DRAFTS)
        fork = (await client.gate.call(build(Fork, pid=spawned.pid))).value
        async with client.logs(fork.pid, follow=True) as lines:
            async for line in lines:
                if "is where it was" in line.text:
                    break
        (home / "work" / "go").touch()
        assert [(await client.wait(pid)).exit.status for pid in (spawned.pid, fork.pid)] == [0, 0]
        for name in (spawned.name, fork.name):
            assert (await client.files.stat(f"/agents/{name}/long")).size_bytes == 100_001


WAITING = """
    import sys, time
    if len(sys.argv) > 1:
        sys.exit(client.exit(0, sys.argv[1]))
    for number in range(3):
        client.spawn(str(Path(__file__).parent), f"child {number}")
    ends = [client.wait().exit.result]
    client.log("begun")
    while not Path("go").exists():
        time.sleep(0.02)
    ends += [client.wait().exit.result for _ in range(2)]
    client.exit(0, ", ".join(sorted(ends)))
"""


async def test_who_waits_for_any_child_is_told_of_each_once_by_two_kernels(home: Path) -> None:
    async with booted(home) as client:
        spawned = await begun(home, client, WAITING)
    (home / "work" / "go").touch()
    async with booted(home) as client:
        end = (await client.wait(spawned.pid)).exit
    assert end.result == "child 0, child 1, child 2"


FROM_THE_BEGINNING = """
    import sys, time
    life = 1 + sum(path.name.startswith("life") for path in Path().iterdir())
    if len(sys.argv) > 1:
        client.exit(0, sys.argv[1])
    elif life < 3:
        Path(f"life {life}").touch()
        client.spawn(str(Path(__file__).parent), f"of life {life}")
        client.log(client.wait().exit.result) if life == 2 else time.sleep(0.5)
        client.exit(0)
    else:
        time.sleep(60)
"""


async def test_a_life_from_the_beginning_waits_for_no_child_of_the_one_before(home: Path) -> None:
    async with booted(home) as client:
        spawned = await begun(home, client, FROM_THE_BEGINNING, policy="always")
        async with client.logs(spawned.pid) as lines:
            assert "of life 2" in [line.text async for line in lines]


READING = """
    import sys, time
    def seen(frames, last):
        for n_seen, _ in enumerate(frames, 1):
            client.files.stat("/shared")
            if n_seen == last:
                return n_seen
    if sys.argv[1] == "log":
        client.log("one\\ntwo")
        with client.logs(client.getpid().pid) as lines:
            n_seen = len(list(lines))
    elif sys.argv[1] == "log as it comes":
        client.log("one\\ntwo\\nthree")
        with client.logs(client.getpid().pid, follow=True, tail=2) as lines:
            n_seen = [line.text for _, line in zip(range(2), lines, strict=False)]
    else:
        with client.files.follow("/shared", since=0) as changes:
            n_seen = seen(changes, 3)
    crash_once()
    client.exit(0, f"{n_seen}")
"""


@pytest.mark.parametrize(
    ("what", "expected"),
    [("log", "2"), ("log as it comes", "['two', 'three']"), ("changes", "3")],
)
async def test_what_came_in_pieces_comes_again(home: Path, what: str, expected: str) -> None:
    async with booted(home) as client:
        for number in range(5):
            await client.files.write(f"/shared/{number}", "x")
        result, _ = await end_of(home, client, READING, what)
    assert result == expected


WATCHING = """
    with client.files.follow("/shared") as changes:
        client.log("begun")
        for number, version in enumerate(changes):
            client.files.read(version.path)
            if number == 2:
                Path("three").touch()
            if number == 5:
                break
    client.exit(0, f"{version.path}")
"""


async def test_who_follows_changes_goes_on_under_the_next_kernel_and_misses_none(
    home: Path,
) -> None:
    async with booted(home) as client:
        await client.files.write("/shared/before", "x")
        spawned = await begun(home, client, WATCHING)
        for number in range(3):
            await client.files.write(f"/shared/{number}", "x")
        while not (home / "work" / "three").exists():
            await anyio.sleep(0.02)
    async with booted(home) as client:
        for number in range(3, 6):
            await client.files.write(f"/shared/{number}", "x")
        end = (await client.wait(spawned.pid)).exit
    assert end.result == "/shared/5"


TICKING = """
    import aios, anyio
    async def tick(other, seconds):
        for number in range(5):
            await other.timers.sleep(seconds)
            await other.files.append(f"/shared/{seconds}", f"{number} ")
    async def tick_all():
        async with aios.connect() as other, anyio.create_task_group() as tasks:
            for seconds in (0.05, 0.07, 0.11):
                tasks.start_soon(tick, other, seconds)
    anyio.run(tick_all)
    crash_once()
    client.exit(0, " ".join(client.files.read_text(f"/shared/{each}") for each in (0.05, 0.07, 0.11)))
"""


async def test_tasks_that_sleep_side_by_side_come_back(home: Path) -> None:
    async with booted(home) as client:
        result, _ = await end_of(home, client, TICKING)
    assert result.split() == [*"01234"] * 3


SLEEPING = """
    client.log("begun")
    began = client.repeatable.now()
    client.exit(0, f"{client.timers.sleep(2) - began}")
"""


async def test_a_sleep_that_a_kernel_cut_off_lasts_as_long_as_it_was_to(home: Path) -> None:
    async with booted(home) as client:
        spawned = await begun(home, client, SLEEPING)
        await anyio.sleep(1)
    async with booted(home) as client:
        end = (await client.wait(spawned.pid)).exit
    assert 2 <= float(end.result) < 2.9


OF_ANOTHER = """
    import sys
    context = client.contexts.restore("theirs")
    context.chat("one")
    if sys.argv[1] == "replaced":
        mine = client.contexts.open(system="Be long.")
        mine.snapshot("theirs", is_replacing=True)
        mine.close()
    else:
        client.contexts.forget("theirs")
    crash_once()
    client.exit(0, f"{len(client.contexts.list_all())} contexts")
"""


@pytest.mark.parametrize("fate", ["replaced", "forgotten"])
async def test_for_a_snapshot_of_another_that_is_gone_no_other_text_is_taken(
    home: Path, fate: str
) -> None:
    async with booted(home) as client:
        theirs = await client.contexts.open(system="Be brief.")
        await theirs.snapshot("theirs")
        result, said = await end_of(home, client, OF_ANOTHER, fate)
    assert result == "0 contexts"
    assert "what call 1 (context_restore) did is not there again" in said
