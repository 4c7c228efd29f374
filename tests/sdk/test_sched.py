import anyio
import anyio.to_thread
import pytest
from tests.sdk.serving import booted, served

from aios.sdk import blocking
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio


async def test_the_owner_sees_and_sets_the_policy() -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            client = Client(kernel.init_gate())
            await client.chat("hello")
            assert (await client.sched.show()).lanes[0].resource == "engine:test"
            about = await client.sched.set("fair", quantum_tokens=8, weights={"a": 2.0})
            assert (about.policy, about.quantum_tokens, about.weights) == ("fair", 8, {"a": 2.0})


async def test_plain_code_has_the_same() -> None:
    def work(url: str, token: str) -> None:
        with blocking.connect(url, token) as client:
            assert client.sched.set(quantum_tokens=5).quantum_tokens == 5
            assert client.sched.show().quantum_tokens == 5

    with anyio.fail_after(30):
        async with served() as kernel:
            await anyio.to_thread.run_sync(work, kernel.urls[0], kernel.owner_token)
