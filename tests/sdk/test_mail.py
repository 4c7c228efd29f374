import inspect

import anyio
import pytest
from anyio import to_thread
from tests.sdk.serving import served

from aios.sdk import blocking
from aios.sdk.client import connect
from aios.sdk.mail import BlockingMail, Mail

pytestmark = pytest.mark.anyio


def test_both_have_the_same_methods() -> None:
    def surface(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(BlockingMail) == surface(Mail)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_a_guest_and_the_owner_write_to_each_other_over_a_socket(over: str) -> None:
    with anyio.fail_after(30):
        async with served(http=over == "http") as kernel:
            url = next(url for url in kernel.urls if url.startswith(over))
            guest, token = kernel.admit("ann")

            def answer() -> str:
                with blocking.connect(url, token) as client:
                    letter = client.mail.receive(sender=1)
                    client.mail.reply(letter, letter.body.upper())
                    return letter.sender_name

            async with (
                connect(url, kernel.owner_token) as owner,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(to_thread.run_sync, answer)
                reply = await owner.mail.ask(guest.pid, "hello", deadline_s=10)
                assert reply.body == "HELLO"
                assert (await owner.mail.statistics()).n_letters == 0


async def test_plain_code_has_topics_and_receipts() -> None:
    def work(url: str, token: str) -> None:
        with blocking.connect(url, token) as client:
            mail = client.mail
            me = client.getpid().pid
            mail.subscribe("news")
            assert mail.publish("news", "to nobody else").n_delivered == 0
            letter_id = mail.send(me, "to myself", wants_receipt=True)
            assert mail.take().letters[0].id == letter_id
            assert mail.receive(topic="receipt").reply_to == letter_id
            assert mail.statistics().topics == ("news",)
            mail.subscribe("news", is_on=False)
            assert mail.statistics().topics == ()
            asked = mail.send(me, "q")
            mail.send(me, "a", reply_to=asked)
            assert mail.receive(reply_to=asked).body == "a"

    with anyio.fail_after(30):
        async with served() as kernel:
            url = next(url for url in kernel.urls if url.startswith("unix"))
            await to_thread.run_sync(work, url, kernel.owner_token)
