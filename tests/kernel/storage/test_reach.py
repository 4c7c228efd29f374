from collections.abc import Callable
from typing import Any

import anyio
import apsw
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle

from aios.abi.access import Principal
from aios.abi.storage import Share
from aios.abi.types import Kind, Right
from aios.errors import AccessDenied, ResourceExhausted
from aios.kernel.access.manager import AccessManager
from aios.kernel.access.policy import Policies, Source
from aios.kernel.clock import SystemClock
from aios.kernel.process import Process
from aios.kernel.process_table import ProcessTable
from aios.kernel.storage import tables
from aios.kernel.storage.reach import MAX_ALLOWED, Reaches
from aios.kernel.taint import mark
from aios.sdk.files import Files

POLICIES = """
@id("all") permit(principal, action, resource);
@id("clean") forbid(principal, action == Action::"file.read", resource in Path::"/shared/clean") when { context.is_tainted };
@id("low") forbid(principal == Agent::"low", action == Action::"file.read", resource in Path::"/shared/high");
"""


def ann() -> tuple[Process, Reaches]:
    table = ProcessTable(clock=SystemClock(), max_alive=9, max_exited=9, max_log_bytes=1 << 16)
    init = table.add("init", kind=Kind.INIT, parent=None, rights=frozenset(Right), owner="me")
    process = table.add("ann", kind=Kind.TASK, parent=init, rights=frozenset(Right), owner="me")
    reaches = Reaches()
    reaches.access = AccessManager(table, Policies([Source("mine", POLICIES)]))
    reaches.load([])
    return process, reaches


def test_what_was_allowed_is_judged_anew_when_the_process_is_another() -> None:
    process, reaches = ann()
    for _ in range(2):
        assert reaches.of(process).may_read("/shared/clean/a")
        assert reaches.of(process).may_read("/shared/high/a")
    process.bounds = (Principal("low", "me", "program"), *process.bounds)
    assert not reaches.of(process).may_read("/shared/high/a")
    assert reaches.of(process).may_read("/shared/clean/a")
    mark(process, "http://example.com")
    assert not reaches.of(process).may_read("/shared/clean/a")
    assert reaches.of(process).may_write("/shared/clean/a")
    assert not reaches.of(process).may_read("/shared/clean/a")


def test_how_much_is_kept_of_what_was_allowed_is_bounded() -> None:
    process, reaches = ann()
    for number in range(2 * MAX_ALLOWED + 1):
        assert reaches.of(process).may_read(f"/shared/{number}")
    mark(process, "http://example.com")
    assert not reaches.of(process).may_read("/shared/clean/a")


def test_a_share_changes_what_is_reached() -> None:
    process, reaches = ann()
    assert not reaches.of(process).may_read("/agents/bob/a")
    reaches.load([Share("/agents/bob/a", "/agents/ann", "read")])
    assert reaches.of(process).may_read("/agents/bob/a")
    assert not reaches.of(process).may_write("/agents/bob/a")


@pytest.mark.anyio
async def test_a_share_that_was_taken_back_stays_so_whoever_is_told_last(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted() as kernel:
        owner, bob = Files(kernel.init_gate()), Files(kernel.gate(kernel.spawn_task("bob", idle)))
        await owner.write("/agents/ann/a", "a")
        write, is_held, go_on = kernel.db.write, anyio.Event(), anyio.Event()

        async def slow_write(change: Callable[[apsw.Connection], object], **options: Any) -> object:
            result = await write(change, **options)
            if not is_held.is_set():
                is_held.set()
                await go_on.wait()
            return result

        monkeypatch.setattr(kernel.db, "write", slow_write)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(owner.share, "/agents/ann/a", "bob")
                await is_held.wait()
                await owner.share("/agents/ann/a", "bob", "none")
                go_on.set()
        with pytest.raises(AccessDenied):
            await bob.read("/agents/ann/a")


@pytest.mark.anyio
async def test_so_many_paths_of_one_agent_are_shared(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_SHARES", 3)
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        ann = Files(kernel.gate(pid))
        kid = Files(kernel.gate(kernel.spawn_task("kid", idle, ppid=pid)))
        for number in range(2):
            await ann.share(f"{number}", "bob")
        await kid.share("its", "bob")
        for files in (ann, kid):
            with pytest.raises(ResourceExhausted, match="3 shares"):
                await files.share("more", "bob")
        await ann.share("1", "bob", "write")
        await ann.share("0", "bob", "none")
        await kid.share("more", "bob")
        assert {each.path for each in await ann.shares()} == {
            "/agents/ann/1", "/agents/ann/kid/its", "/agents/ann/kid/more"
        }  # fmt: skip
        await Files(kernel.gate(kernel.spawn_task("eve", idle))).share("a", "bob")
