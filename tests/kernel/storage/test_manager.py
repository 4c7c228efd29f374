import random
import string
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.abi.storage import Delete, FileList, Move, Put
from aios.abi.types import Pid
from aios.config import AccessConfig, Config, Home, StorageConfig
from aios.errors import (
    AccessDenied,
    AiosError,
    Conflict,
    DeadlineExceeded,
    InvalidCall,
    NotFound,
    ResourceExhausted,
    Unsupported,
)
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str, *, parent: Pid = Pid(1)) -> tuple[Pid, Files]:
    """A process, and its files."""
    pid = kernel.spawn_task(name, idle, ppid=parent)
    return pid, Files(kernel.gate(pid))


def owner(kernel: Kernel) -> Files:
    return Files(kernel.init_gate())


async def assert_all_in_order(kernel: Kernel) -> None:
    assert (await owner(kernel).check()).faults == ()


async def test_what_is_written_is_read_and_every_write_is_a_version(booted: OpenKernel) -> None:
    async with booted() as kernel:
        pid, ann = agent(kernel, "ann")
        edited = await ann.write("plan.md", "one\n", message="first")
        (version,) = edited.versions
        assert (version.path, version.version, version.pid) == ("/agents/ann/plan.md", 1, pid)
        assert (version.author, version.message) == ("/agents/ann", "first")
        await ann.write("/agents/ann/plan.md", "two\n")
        assert await ann.read_text("plan.md") == "two\n"
        assert await ann.read_text("plan.md", version=1) == "one\n"
        assert (await ann.write("plan.md", "two\n")).versions == (), "nothing changed"
        assert [each.version for each in await ann.versions("plan.md")] == [2, 1]
        assert "-one\n+two\n" in await ann.diff("plan.md")
        await assert_all_in_order(kernel)


async def test_files_outlive_the_kernel(tmp_path: Path) -> None:
    for expected in (None, "kept"):
        async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
            _, ann = agent(kernel, "ann")
            if expected is None:
                await ann.write("a", "kept")
            assert await ann.read_text("a") == "kept"
            await assert_all_in_order(kernel)


async def test_a_deleted_file_can_be_brought_back_until_it_is_purged(booted: OpenKernel) -> None:
    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        await ann.write("a", "kept")
        await ann.delete("a")
        with pytest.raises(NotFound):
            await ann.read("a")
        assert await ann.list() == []
        assert [each.size_bytes for each in await ann.versions("a")] == [None, 4]
        await ann.rollback("a", version=1)
        assert await ann.read("a") == b"kept"
        await ann.delete("a")
        purged = await owner(kernel).purge("/agents/ann/a", keep=0)
        assert purged.n_versions == 4
        for nothing in (
            ann.rollback("a", version=1),
            owner(kernel).purge("/agents/ann/a"),
            owner(kernel).purge("/agents/nobody"),
        ):
            with pytest.raises(NotFound):
                await nothing
        assert (await owner(kernel).collect()).n_versions == 1
        await assert_all_in_order(kernel)


async def test_edits_of_one_call_happen_all_or_none(booted: OpenKernel) -> None:
    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        await ann.write("a", "a")
        with pytest.raises(NotFound):
            await ann.edit([Put("b", b"b"), Move("a", "c"), Delete("none")])
        assert [info.path for info in await ann.list()] == ["/agents/ann/a"]
        edited = await ann.edit([Put("b", b"b"), Move("a", "c"), Put("d/e", b"")])
        assert len({version.transaction for version in edited.versions}) == 1
        assert [info.path for info in await ann.list(is_deep=True)] == [
            f"/agents/ann/{name}" for name in ("b", "c", "d/e")
        ]
        await ann.rollback(transaction=edited.transaction)
        assert [info.path for info in await ann.list(is_deep=True)] == ["/agents/ann/a"]
        await assert_all_in_order(kernel)


async def test_a_writer_can_insist_on_the_version_it_has_read(booted: OpenKernel) -> None:
    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        await ann.write("a", "1", if_version=0)
        with pytest.raises(Conflict, match="version 1, not 0"):
            await ann.write("a", "2", if_version=0)
        await ann.write("a", "2", if_version=1)
        outcomes: list[bool] = []

        async def count_up() -> None:
            try:
                await ann.write("a", "3", if_version=2)
                outcomes.append(True)
            except Conflict:
                outcomes.append(False)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(count_up)
        # Who came later finds version 3; only one has written.
        assert sum(outcomes) == 1


async def test_rollback_to_a_moment_and_before_a_process(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (ann_pid, ann), (bob_pid, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann.write("/shared/a", "ann's")
        await ann.write("/shared/c", "ann's")
        moment = kernel.clock.unix_s()
        await anyio.sleep(0.01)
        await bob.edit(
            [Put("/shared/a", b"bob's"), Put("/shared/b", b"bob's"), Delete("/shared/c")]
        )
        await ann.write("/shared/b", "ann again")
        with pytest.raises(AccessDenied):
            await ann.rollback(pid=bob_pid)
        await owner(kernel).rollback(pid=bob_pid)
        assert await ann.read("/shared/a") == await ann.read("/shared/c") == b"ann's"
        assert await ann.read("/shared/b") == b"ann again", "another has changed it since"
        await ann.rollback("/shared", unix_s=moment)
        assert [info.path for info in await ann.list("/shared")] == ["/shared/a", "/shared/c"]
        with pytest.raises(InvalidCall):
            await ann.rollback("/shared/a")
        with pytest.raises(InvalidCall):
            await ann.rollback("/shared/a", version=1, pid=ann_pid)
        with pytest.raises(InvalidCall, match="`path` does not go with"):
            await ann.rollback("/shared/c", pid=ann_pid)
        with pytest.raises(InvalidCall, match="`path` does not go with"):
            await ann.rollback("/shared/c", transaction=1)
        assert await ann.read("/shared/a") == b"ann's"
        await assert_all_in_order(kernel)


async def test_a_rollback_leaves_what_others_did_in_between(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (_, ann), (bob_pid, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        await bob.write("/shared/a", "bob's")
        await ann.append("/shared/a", " and ann's")
        await bob.append("/shared/a", " and more")
        await bob.append("/shared/a", " and more")
        await bob.write("/shared/b", "bob's")
        await ann.write("/shared/b", "ann's")
        edited = await owner(kernel).rollback(pid=bob_pid)
        assert await ann.read("/shared/a") == b"bob's and ann's"
        assert await ann.read("/shared/b") == b"ann's"
        assert ([each.path for each in edited.versions], edited.left) == (
            ["/shared/a"],
            ("/shared/b",),
        )


@pytest.mark.no_cover
async def test_append_and_drafts_make_long_files(booted: OpenKernel) -> None:
    draw = random.Random(1)  # noqa: S311 - repeatable on purpose
    data = draw.randbytes(5 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 700_001):
            yield data[start : start + 700_001]

    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        await ann.upload("long", pieces())
        assert await ann.read("long") == data
        assert (await ann.read_piece("long", offset=3_000_000, length=10)).data == data[
            3_000_000:3_000_010
        ]
        await ann.append("long", b"the end")
        assert await ann.read("long") == data + b"the end"
        for number in range(200):
            await ann.append("log", f"line {number}\n")
        lines = (await ann.read_text("log")).splitlines()
        assert lines == [f"line {number}" for number in range(200)]
        await ann.append("log", data[:100_000])
        assert (await ann.stat("log")).size_bytes == 100_000 + sum(len(line) + 1 for line in lines)
        await assert_all_in_order(kernel)


@pytest.mark.no_cover
async def test_a_thousand_versions_of_a_text_take_little_more_than_their_edits(
    booted: OpenKernel,
) -> None:
    draw = random.Random(1)  # noqa: S311 - repeatable on purpose
    words = [
        "".join(draw.choices(string.ascii_lowercase, k=draw.randrange(2, 10))) for _ in range(2000)
    ]
    text = " ".join(draw.choices(words, k=17_000))[:100_000]
    n_versions = 100
    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        for _ in range(n_versions):
            at = draw.randrange(len(text))
            text = text[:at] + draw.choice(words) + text[at + 5 :]
            await ann.write("text", text)
        (used,) = (await ann.usage()).usages
        assert used.n_files == 1
        assert used.stored_bytes <= 5e6 * n_versions / 1000
        assert await ann.read_text("text") == text


async def test_the_quota_refuses_what_is_over_it_and_nothing_is_left(tmp_path: Path) -> None:
    config = Config(storage=StorageConfig(quota_bytes=50_000))
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        (_, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        draw = random.Random(1)  # noqa: S311 - repeatable on purpose
        await ann.write("a", draw.randbytes(40_000))
        with pytest.raises(ResourceExhausted, match="50000 bytes"):
            await ann.write("b", draw.randbytes(20_000))
        await bob.write("b", draw.randbytes(20_000))
        await ann.delete("a")
        with pytest.raises(ResourceExhausted):
            await ann.write("b", draw.randbytes(20_000))
        await owner(kernel).purge("/agents/ann/a", keep=0)
        await ann.write("b", draw.randbytes(20_000))
        await assert_all_in_order(kernel)


async def test_a_name_is_a_file_or_a_folder(booted: OpenKernel) -> None:
    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        await ann.write("a/b", "")
        for path in ("a", "a/b/c", "/", "/shared", "/agents/ann/.."):
            with pytest.raises((AccessDenied, Conflict, InvalidCall)):
                await ann.write(path, "")
        with pytest.raises(Conflict):
            await ann.move("a", "a/b/c")
        await ann.write("c", "")
        with pytest.raises(Conflict, match="is there already"):
            await ann.move("a/b", "c")
        await ann.copy("a", "d")
        assert [i.path for i in await ann.list()] == [f"/agents/ann/{n}" for n in "acd"]
        assert (await ann.stat("d")).is_folder
        await ann.write("c", b"\xff")
        with pytest.raises(Unsupported):
            await ann.diff("c")


async def test_others_files_are_out_of_reach_until_they_are_shared(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (pid, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann.write("secrets/key", "k")
        await ann.write("diary", "d")
        for attempt in (
            bob.read,
            bob.stat,
            bob.versions,
            bob.list,
            bob.delete,
            bob.lock,
            bob.watch,
        ):
            for path in ("/agents/ann/secrets/key", "/agents/ann", "/agents/ann/none"):
                with pytest.raises((AccessDenied, InvalidCall)):
                    await attempt(path)
        with pytest.raises(AccessDenied):
            await bob.share("/agents/ann/secrets", "bob")
        await ann.share("secrets", "bob", "read")
        assert await bob.read("/agents/ann/secrets/key") == b"k"
        with pytest.raises(AccessDenied):
            await bob.write("/agents/ann/secrets/key", "x")
        with pytest.raises(AccessDenied):
            await bob.read("/agents/ann/diary")
        assert [info.path for info in await bob.list("/agents")] == ["/agents/ann", "/agents/bob"]
        assert [info.path for info in await bob.list("/agents/ann")] == ["/agents/ann/secrets"]
        await ann.share("secrets", "bob", "write")
        await bob.write("/agents/ann/secrets/key", "new")
        assert (await ann.shares())[0].grantee == (await bob.shares())[0].grantee == "/agents/bob"
        await ann.share("secrets", "bob", "none")
        with pytest.raises(AccessDenied):
            await bob.read("/agents/ann/secrets/key")
        _, child = agent(kernel, "kid", parent=pid)
        await child.write("toy", "t")
        assert await ann.read("kid/toy") == b"t", "a process rules those that it has started"
        with pytest.raises(AccessDenied):
            await child.read("/agents/ann/diary")


async def test_a_namesake_under_another_parent_has_another_folder(booted: OpenKernel) -> None:
    async with booted() as kernel:
        bob_pid, bob = agent(kernel, "bob")
        await bob.write("a", "bob's")
        await kernel.signals.kill(kernel.table.get(bob_pid), reason="test")
        eve_pid, _ = agent(kernel, "eve")
        _, false_bob = agent(kernel, "bob", parent=eve_pid)
        with pytest.raises(AccessDenied):
            await false_bob.read("/agents/bob/a")
        with pytest.raises(NotFound):
            await false_bob.read("a")


async def test_a_group_is_the_processes_of_an_owner_and_a_guest_has_none(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        (_, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann.write("/groups/owner/a", "for all of the owner's")
        assert await bob.read("/groups/owner/a")
        guest = Files(kernel.gate(kernel.admit("eve")[0].pid))
        with pytest.raises(AccessDenied):
            await guest.read("/groups/owner/a")
        with pytest.raises(AccessDenied):
            await guest.write("/groups/eve/a", "for me alone")
        with pytest.raises(AccessDenied):
            await guest.collect()


async def test_who_watches_misses_no_change_and_sees_none_twice(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (_, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        start = (await bob.watch("/shared", is_waiting=False)).next
        seen: list[str] = []

        async def watch() -> None:
            since = start
            while len(seen) < 20:
                changes = await bob.watch("/shared", since=since)
                seen.extend(version.path for version in changes.versions)
                since = changes.next

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                for number in range(20):
                    await ann.write(f"private{number}", "x")
                    await ann.write(f"/shared/{number:02}", "x")
        assert seen == [f"/shared/{number:02}" for number in range(20)]
        with pytest.raises(DeadlineExceeded):
            await bob.watch("/shared", deadline_s=0.01)


async def test_a_lock_keeps_others_out_until_its_lease_or_its_process_ends(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        (pid, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann.lock("/shared/a")
        await ann.lock("/shared/a")
        with pytest.raises(Conflict, match="has the lock"):
            await bob.lock("/shared/a", is_waiting=False)
        await bob.unlock("/shared/a")
        with pytest.raises(DeadlineExceeded):
            await bob.lock("/shared/a", deadline_s=0.01)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bob.lock, "/shared/a")
                await anyio.wait_all_tasks_blocked()
                await kernel.signals.kill(kernel.table.get(pid), reason="test")
            await bob.lock("/shared/a", lease_s=0.01)
            _, eve = agent(kernel, "eve")
            await eve.lock("/shared/a")


async def test_pages_of_a_listing_join_without_gaps(booted: OpenKernel) -> None:
    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        await ann.edit([Put(f"{n % 7}/{n:03}", b"") for n in range(100)])
        await ann.edit([Put(f"x{n:03}", b"") for n in range(100)])
        await ann.edit([Put(path, b"") for path in ("b", "b-x/1", "b.d/1", "c/1", "c-d/1", "c.f")])
        for is_deep, n_expected, limit in ((False, 113, 1), (False, 113, 9), (True, 206, 9)):
            whole = [info.path for info in await ann.list(is_deep=is_deep)]
            assert len(set(whole)) == len(whole) == n_expected
            paged: list[str] = []
            after = ""
            while True:
                call = FileList(is_deep=is_deep, after=after, limit=limit)
                page = (await ann._gate.call(call)).value
                paged += [info.path for info in page.files]
                after = page.next
                assert len(paged) <= len(whole)
                if not after:
                    break
            assert paged == whole


NAMES = ("ann", "bob", "eve")
PLACES = st.builds(
    lambda name, rest: f"/agents/{name}{rest}",
    st.sampled_from(NAMES),
    st.sampled_from(["", "/a", "/a/b", "/c", "/../ann/a", "/kid/a"]),
)
ATTEMPTS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 11), PLACES, PLACES), min_size=1, max_size=25
)


async def attempt(files: Files, kind: int, source: str, target: str) -> object:
    match kind:
        case 0:
            return await files.read(source)
        case 1:
            return await files.list(source, is_deep=True)
        case 2:
            return await files.versions(source)
        case 3:
            return await files.diff(source)
        case 4:
            return await files.copy(source, "stolen/x")
        case 5:
            return await files.move(source, target)
        case 6:
            return await files.write(target, "mine")
        case 7:
            return await files.delete(source)
        case 8:
            return await files.purge(source, keep=0)
        case 9:
            return await files.rollback(source, unix_s=0.0)
        case 10:
            return await files.watch(source, since=0, is_waiting=False)
        case _:
            return await files.rollback(transaction=1)


@given(attempts=ATTEMPTS)
@settings(max_examples=25, deadline=None)
async def test_no_sequence_of_calls_shows_one_agent_the_files_of_another(
    attempts: list[tuple[str, int, str, str]],
) -> None:
    """Each content names its agent; whatever comes back from any call must name none but the caller, and nothing may be lost."""
    with TemporaryDirectory() as folder:
        config = Config(access=AccessConfig(profile="full"))  # a purge is not asked about
        async with open_kernel(config, Home(Path(folder)), engines={}) as kernel:
            agents = {name: agent(kernel, name)[1] for name in NAMES}
            for name, files in agents.items():
                await files.edit([Put("a", f"SECRET-{name}".encode()), Put(f"only-{name}", b"")])
            first = (await owner(kernel).watch("/", is_waiting=False)).next
            for name, kind, source, target in attempts:
                own = f"/agents/{name}/"
                if all(
                    f"{path}/".startswith(own) and ".." not in path for path in (source, target)
                ):
                    continue
                try:
                    seen = repr(await attempt(agents[name], kind, source, target))
                except AiosError as error:
                    seen = error.message.replace(source, "").replace(target, "")
                for other in NAMES:
                    if other != name:
                        assert f"SECRET-{other}" not in seen
                        assert f"only-{other}" not in seen
            changed = (await owner(kernel).watch("/", since=first, is_waiting=False)).versions
            assert all(version.path.startswith(version.author + "/") for version in changed)
            await assert_all_in_order(kernel)
