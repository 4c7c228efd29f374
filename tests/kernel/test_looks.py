from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.conftest import NOBODY
from tests.kernel.tools.offering import idle

from aios.abi.branches import BranchCommit, BranchDiscard
from aios.abi.call import Answer, Call
from aios.abi.checkpoints import CheckpointRemove
from aios.abi.contexts import ContextForget
from aios.abi.deadletters import DeadLetterDrop
from aios.abi.memory import Forget, Remember, Scope, Update
from aios.abi.recovery import AnswerQuestion
from aios.abi.storage import FileEdit, FilePurge, Put
from aios.abi.tools import ToolRun
from aios.abi.types import Pid
from aios.config import ApprovalsConfig, Config, Home
from aios.errors import AccessDenied, AiosError, Conflict, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

ASKING = ApprovalsConfig()
VAULT = '@id("vault") forbid(principal, action == Action::"file.read", resource in Path::"/shared/vault") unless { principal.kind == "init" };'


async def fault(gate: LocalGate, call: Call[Answer]) -> type[AiosError]:
    """How a call fails; it must, and soon."""
    with anyio.fail_after(30), pytest.raises(AiosError) as caught:
        await gate.call(call)
    return caught.type


@pytest.mark.parametrize("approvals", [ASKING, NOBODY], ids=["somebody", "nobody"])
async def test_nobody_is_asked_about_what_is_not_there(
    tmp_path: Path, approvals: ApprovalsConfig
) -> None:
    config = Config(approvals=approvals)
    async with open_kernel(config, Home(tmp_path), engines={}, is_durable=True) as kernel:
        process, _ = kernel.admit("eve")  # a guest: all that it does is data from outside
        eve = kernel.gate(process.pid)
        for call in (
            FilePurge(path="nothing"),
            FilePurge(path="/shared/nothing"),
            Forget(id=77),
            Update(id=77, text="x"),
            ContextForget(name="nothing"),
            DeadLetterDrop(id=77),
            ToolRun(name="nothing"),
        ):
            assert await fault(eve, call) is NotFound, call
        # Guests may not start processes: a task that has heard from outside may.
        ann = kernel.table.get(kernel.spawn_task("ann", idle))
        ann.taint = process.taint
        gate = kernel.gate(ann.pid)
        for made, error in (
            (CheckpointRemove(which="nothing"), NotFound),
            (BranchCommit(), NotFound),
            (BranchDiscard(group=77), NotFound),
            (AnswerQuestion(pid=ann.pid, choice="again"), Conflict),
            (AnswerQuestion(pid=Pid(77), choice="again"), NotFound),
        ):
            assert await fault(gate, made) is error, made
        assert await Client(kernel.init_gate()).approvals.list(include_over=True) == ()


async def test_what_is_there_is_asked_about(tmp_path: Path) -> None:
    config = Config(approvals=ASKING)
    async with (
        open_kernel(config, Home(tmp_path), engines={}) as kernel,
        anyio.create_task_group() as tasks,
    ):
        process, _ = kernel.admit("eve")
        eve = kernel.gate(process.pid)
        await eve.call(FileEdit(edits=(Put("mine", b"x"),)))
        note = (await eve.call(Remember(text="mine"))).value
        for call in (FilePurge(path="mine"), Forget(id=note.id)):
            tasks.start_soon(eve.call, call)
        with anyio.fail_after(30):
            while len(await Client(kernel.init_gate()).approvals.list()) < 2:
                await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_what_is_anothers_looks_like_what_is_not_there(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "mine.cedar").write_text(VAULT)
    config = Config(approvals=NOBODY)
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        owner, ann = kernel.init_gate(), kernel.gate(kernel.spawn_task("ann", idle))
        eve = kernel.gate(kernel.admit("eve")[0].pid)
        await ann.call(FileEdit(edits=(Put("secret", b"x"),)))
        private = (await ann.call(Remember(text="secret"))).value.id
        shared = (await ann.call(Remember(text="said", scope=Scope.SHARED))).value.id
        await owner.call(FileEdit(edits=(Put("/shared/vault/key", b"x"),)))
        assert await fault(eve, Forget(id=private)) is NotFound
        assert await fault(eve, Forget(id=shared)) is AccessDenied, (
            "it can read it, and it is ann's"
        )
        for name in ("secret", "nothing"):
            assert await fault(eve, FilePurge(path=f"/agents/ann/{name}")) is AccessDenied
        for name in (
            "key",
            "nothing",
        ):  # it may write there and not read: it is not told which is there
            assert await fault(eve, FilePurge(path=f"/shared/vault/{name}")) is AccessDenied
