import inspect

import anyio
import pytest
from anyio import to_thread
from tests.sdk.serving import served

from aios.errors import InvalidCall
from aios.sdk import blocking
from aios.sdk import memory as module
from aios.sdk.client import connect
from aios.sdk.memory import BlockingMemory, Memory

pytestmark = pytest.mark.anyio


def test_both_have_the_same_methods() -> None:
    def surface(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(BlockingMemory) == surface(Memory)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_one_remembers_and_another_recalls_over_a_socket(
    over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_NOTES", 2)
    with anyio.fail_after(30):
        async with served(http=over == "http") as kernel:
            url = next(url for url in kernel.urls if url.startswith(over))
            _, token = kernel.admit("ann")

            def work() -> None:
                with blocking.connect(url, token) as client:
                    first = client.memory.remember("the boat is red", scope="shared", tags=["boat"])
                    second = client.memory.remember("the sail is white", scope="shared")
                    client.memory.link(first, second)
                    third = client.memory.update(second, "the sail is blue")
                    assert client.memory.get(first).links == (second, third)
                    texts = [note.text for note in client.memory.notes()]
                    assert texts == ["the boat is red", "the sail is blue"]
                    assert client.memory.recall("sail").hits[0].note.id == third

            await to_thread.run_sync(work)
            async with connect(url, kernel.owner_token) as owner:
                # A guest's words come from outside: what it would forget for ever asks the owner first.
                await owner.memory.forget(await owner.memory.remember("nothing"))
                assert (await owner.memory.recall("boat", tags=["boat"])).hits[
                    0
                ].note.importance == 0.5
                with pytest.raises(InvalidCall, match="importance"):
                    await owner.memory.remember("x", importance=7)
