import anyio
import pytest
from tests.kernel.tools.offering import idle
from tests.server.serving import serving

from aios.kernel.kernel import Kernel
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
        with anyio.fail_after(5):
            while not answers:
                await said.wait()
        assert answers == ["y"]
        assert (await client.delete(path)).status_code == 409
        over = (await client.get("/aios/approvals?all=true")).json()["value"]["approvals"]
        assert [each["state"] for each in over] == ["used"]


async def _wait_asked(kernel: Kernel) -> int:
    changed, owner = WaitQueue(), Client(kernel.init_gate())
    kernel.approvals.watchers.append(lambda _: changed.wake_all())
    with anyio.fail_after(5):
        while not (found := await owner.approvals.list()):
            await changed.wait()
    return found[0].id
