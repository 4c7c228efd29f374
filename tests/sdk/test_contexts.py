import inspect

import anyio
import pytest
from anyio import to_thread
from tests.sdk.serving import served

from aios.abi.contexts import WindowPolicy
from aios.abi.types import Message, Role, ToolSpec
from aios.engine.script import Script
from aios.errors import Conflict, InvalidCall, NotFound
from aios.sdk import blocking
from aios.sdk.blocking_contexts import BlockingContext, BlockingContexts
from aios.sdk.client import connect
from aios.sdk.contexts import Context, Contexts

pytestmark = pytest.mark.anyio

SCRIPT = Script(replies=("one", "two", "three"))


@pytest.mark.parametrize(
    ("plain", "waiting"), [(BlockingContext, Context), (BlockingContexts, Contexts)]
)
def test_both_have_the_same_methods(plain: type, waiting: type) -> None:
    def surface(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(plain) == surface(waiting)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_a_conversation_over_a_socket(over: str) -> None:
    with anyio.fail_after(30):
        async with served(SCRIPT, http=over == "http") as kernel:
            url = next(url for url in kernel.urls if url.startswith(over))
            async with connect(url, kernel.owner_token) as client:
                async with client.context(system="be brief", window="drop-oldest") as context:
                    assert (await context.chat("first")).text == "one"
                    branch = await context.fork()
                    async with context.stream_chat("second") as stream:
                        assert "".join([piece async for piece in stream]) == "two"
                    await branch.append("another", is_pinned=True)
                    assert (await branch.chat()).text == "three"
                    assert [m.text() for m in await context.messages()] == [
                        "be brief", "first", "one", "second", "two",
                    ]  # fmt: skip
                    info = await branch.stat()
                    assert (info.n_messages, info.window) == (5, WindowPolicy.DROP_OLDEST)
                    compacted = await branch.compact(target_tokens=20)
                    assert compacted.compaction.n_messages == 2
                    assert (await branch.undo()).n_messages == 5
                    with pytest.raises(Conflict):
                        await branch.undo()
                    await context.snapshot("seas")
                assert [each.id for each in await client.contexts.list_all()] == [branch.id]
                restored = await client.contexts.restore("seas")
                assert len(await restored.messages()) == 5
                assert [each.name for each in await client.contexts.snapshots()] == ["seas"]
                await client.contexts.forget("seas")
                with pytest.raises(NotFound):
                    await client.contexts.restore("seas")
                await branch.close()
                await branch.close()


async def test_a_tool_of_the_context_can_be_asked_for_by_its_name() -> None:
    tools = [ToolSpec(name, "", {"type": "object", "properties": {}}) for name in ("look", "go")]
    with anyio.fail_after(30):
        async with (
            served(Script()) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
        ):
            async with client.context(tools=tools) as context:
                said = await context.chat("where?", tool_choice="go")
                assert [call.name for call in said.tool_calls] == ["go"]
            async with client.context(tools=tools) as context:
                with pytest.raises(InvalidCall, match="fly"):
                    await context.chat("where?", tool_choice="fly")


async def test_leaving_a_stream_early_leaves_the_context_as_it_was() -> None:
    script = Script(answer_tokens=1000, token_delay_s=0.002)
    with anyio.fail_after(30):
        async with served(script) as kernel, connect(kernel.urls[0], kernel.owner_token) as client:
            async with client.context() as context:
                async with context.stream_chat("first") as stream:
                    await stream.__anext__()
                assert await context.messages() == ()
                with anyio.move_on_after(0.05):
                    async with client.context() as cut:
                        await cut.chat("first")
            while await client.contexts.list_all():
                await anyio.sleep(0.01)


async def test_plain_code_pages_out_and_faults_in() -> None:
    def work(url: str, token: str) -> None:
        with blocking.connect(url, token) as client:
            with client.context(messages=[Message(Role.USER, "long ago " * 50)]) as context:
                assert context.chat().text == "one"
                with context.stream_chat("second") as stream:
                    assert stream.reply().text == "two"
                done = context.compact("page-to-memory", target_tokens=80)
                assert done.pointer == 1
                assert len(context.fault(1)) == 2
                context.fault(1, is_restoring=True)
                assert context.stat().n_messages == 4
                context.undo()
                with context.fork() as branch:
                    branch.snapshot("a")
                    branch.snapshot("a", is_replacing=True)
                same = client.contexts.get(context.id)
                assert same.messages() == context.messages()
                with pytest.raises(InvalidCall):
                    context.append([Message(Role.TOOL, "x", tool_call_id="a")])
                context.append("third")
            restored = client.contexts.restore("a", is_text_only=True)
            assert [each.id for each in client.contexts.list_all()] == [restored.id]
            assert len(client.contexts.snapshots()) == 1
            client.contexts.forget("a")
            with pytest.raises(InvalidCall, match="window"):
                client.contexts.open(window="some")

    with anyio.fail_after(30):
        async with served(SCRIPT) as kernel:
            url = next(url for url in kernel.urls if url.startswith("unix"))
            await to_thread.run_sync(work, url, kernel.owner_token)
