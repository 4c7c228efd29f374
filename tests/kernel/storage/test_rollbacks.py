"""What a rollback finds before the writer is asked for, and what changes until it is written."""

import threading

import anyio
import apsw
import pytest
from tests.kernel.conftest import OpenKernel

from aios.errors import NotFound, TooLarge
from aios.kernel.gate import LocalGate
from aios.kernel.storage import history, manager
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def test_what_is_to_go_back_is_found_by_a_reader_and_what_changed_since_goes_back_too(
    booted: OpenKernel,
) -> None:
    go, begun = threading.Event(), list[str]()

    def wait(_: apsw.Connection) -> None:
        assert go.wait(30)

    with anyio.fail_after(60):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            db, _, _ = kernel.storage.parts
            files = Files(kernel.init_gate())
            for name in ("same", "changed", "later"):
                await files.write(f"/shared/f/{name}", "then")
            then_unix_s = (await files.stat("/shared/f/later")).changed_unix_s
            await files.write("/shared/f/changed", "now")
            await files.write("/shared/g", "beside")

            async def roll_back() -> None:
                n_reads = db.statistics().n_reads
                tasks.start_soon(look, n_reads)
                await files.rollback("/shared/f", unix_s=then_unix_s)
                begun.append("done")

            async def look(n_reads: int) -> None:
                while db.statistics().n_reads < n_reads + 1:
                    await anyio.sleep(0.01)
                begun.append("read")
                go.set()

            tasks.start_soon(db.write, wait)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(files.write, "/shared/f/later", "now")
            tasks.start_soon(files.write, "/shared/f/new", "now")
            tasks.start_soon(files.write, "/shared/g", "now")
            await anyio.wait_all_tasks_blocked()
            await roll_back()
            assert begun == ["read", "done"]
            found = {
                each.path: await files.read_text(each.path)
                for each in await files.list("/shared/f")
            }
            assert found == {f"/shared/f/{name}": "then" for name in ("same", "changed", "later")}
            assert await files.read_text("/shared/g") == "now"
            with pytest.raises(NotFound):
                await files.rollback("/shared/none", unix_s=then_unix_s)


async def test_acts_that_changed_too_much_are_not_looked_for_to_the_end(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_FOUND", 3)
    monkeypatch.setattr(manager, "MAX_CALL_CHANGES", 3)
    async with booted() as kernel:
        db, _, _ = kernel.storage.parts
        pid = kernel.spawn_task("ann", idle)
        ann = Files(kernel.gate(pid))
        for number in range(6):
            await ann.write(f"{number}", "x")
        boot = kernel.storage.boot
        found = await db.read(lambda c: history.changes_of(c, boot=boot, pids=[pid]))
        assert len(found) == 4
        with pytest.raises(TooLarge, match="one call may not change"):
            await Files(kernel.init_gate()).rollback(pid=pid)
        assert len(await ann.list()) == 6
