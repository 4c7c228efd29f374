from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from tests.kernel.tools.offering import declared, echo, idle, offer
from tests.server.serving import serving

from aios.abi.approvals import ApprovalAnswer
from aios.abi.tools import ToolRun, Traits
from aios.config import Config, Home
from aios.errors import AccessDenied, Conflict
from aios.kernel.gate import LocalGate
from aios.kernel.journal.audit import tables as audit
from aios.kernel.journal.audit.chain import Kind
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.waitqueue import WaitQueue
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio


async def test_questions_are_listed_answered_and_taken_back_with_the_owners_token_alone() -> None:
    async with serving() as served, served.client() as client, anyio.create_task_group() as tasks:
        kernel, answers = served.kernel, list[str]()
        ann = Client(kernel.gate(kernel.spawn_task("ann", idle)))
        said = WaitQueue()

        async def ask() -> None:
            result = await ann.tools.run("ask_human", {"question": "Red?", "choices": ["y", "n"]})
            answers.append(result.text)
            said.wake_all()

        tasks.start_soon(ask)
        number = await _wait_asked(kernel)
        listed = (await client.get("/aios/approvals")).json()["value"]["approvals"]
        assert [(each["id"], each["why"]) for each in listed] == [(number, "Red?")]
        path = f"/aios/approvals/{number}"
        guest = kernel.admit("guest")[1]
        async with served.client(guest) as other:
            for method, url in (("GET", "/aios/approvals"), ("POST", path), ("DELETE", path)):
                reply = await other.request(method, url, json={"answer": "y"})
                assert (reply.status_code, reply.json()["code"]) == (403, "access_denied")
        assert (await client.post(path, json={"answer": "maybe"})).status_code == 400
        assert (await client.post(path, json={"no": "y"})).status_code == 400
        assert (await client.post("/aios/approvals/x", json={"answer": "y"})).status_code == 404
        assert (await client.get("/aios/approvals?all=2")).status_code == 400
        reply = await client.post(path, json={"answer": "y"})
        assert (reply.status_code, reply.json()["value"]["said"]) == (200, "y")
        with anyio.fail_after(30):
            while not answers:
                await said.wait()
        assert answers == ["y"]
        assert (await client.delete(path)).status_code == 409
        over = (await client.get("/aios/approvals?all=true")).json()["value"]["approvals"]
        assert [each["state"] for each in over] == ["used"]


async def test_of_many_answers_at_once_one_counts_and_is_in_the_audit_log(tmp_path: Path) -> None:
    answers = ("once", "deny", "process", "deny", "once")
    home, told = Home(tmp_path), dict[str, int]()
    async with (
        open_kernel(Config(), home, engines={}, is_durable=True) as kernel,
        anyio.create_task_group() as tasks,
    ):
        await offer(kernel, "base", echo, declared("launch", Traits(effect="irreversible")))
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        tasks.start_soon(_try, ann, ToolRun(name="base/launch", arguments={}))
        number = await _wait_asked(kernel)
        owner, conflicts = kernel.init_gate(), list[str]()

        async def answer(said: str) -> None:
            try:
                await owner.call(ApprovalAnswer(id=number, answer=said))
                told[said] = told.get(said, 0) + 1
            except Conflict as error:
                conflicts.append(error.message)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as answering:
                for said in answers:
                    answering.start_soon(answer, said)
        assert sum(told.values()) == 1
        assert len(conflicts) == len(answers) - 1
        assert set(conflicts) == {f"question {number} is being answered by somebody else"}
        found = await Client(owner).approvals.list(include_over=True)
        assert [found[0].said] == list(told)
        disk = kernel.journal.disk
        assert disk is not None
        wanted = audit.Wanted(kind=Kind.ANSWERED.value)
        subjects = [
            each.act.subject for each in await disk.read(lambda c: audit.last(c, wanted, 9))
        ]
        assert len(subjects) == 1
        assert f"answer={found[0].said} " in subjects[0]
        tasks.cancel_scope.cancel()


async def _try(gate: LocalGate, call: ToolRun) -> None:
    with suppress(AccessDenied):
        await gate.call(call)


async def _wait_asked(kernel: Kernel) -> int:
    changed, owner = WaitQueue(), Client(kernel.init_gate())
    kernel.approvals.watchers.append(lambda _: changed.wake_all())
    with anyio.fail_after(30):
        while not (found := await owner.approvals.list()):
            await changed.wait()
    return found[0].id
