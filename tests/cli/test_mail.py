"""aios mail against a kernel that runs."""

from tests.cli.conftest import Aios, Served

from aios.abi.types import Pid
from aios.sdk.mail import Mail


def test_the_owner_writes_to_a_process_and_reads_its_answer(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    sent = aios("mail", "send", "bob", "how are you?", "--receipt", "--json").rows()[0]
    assert sent["to"] == pid
    bob = Mail(served.kernel.gate(Pid(pid)))

    async def answer() -> None:
        await bob.reply(await bob.receive(), "well\x1b[2J")

    served.portal.call(answer)
    receipt, reply = aios("mail", "read", "--json").rows()
    assert (receipt["topic"], receipt["body"]) == ("receipt", "read")
    assert (reply["sender_name"], reply["reply_to"]) == ("bob", sent["id"])
    assert aios("mail", "read").out == ""


def test_what_a_letter_says_cannot_move_the_cursor(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    aios("mail", "send", "bob", "hi")
    bob = Mail(served.kernel.gate(Pid(pid)))

    async def answer() -> None:
        await bob.reply(await bob.receive(), "well\x1b[2J")

    served.portal.call(answer)
    shown = aios("mail", "read", "--wait", "5").out
    assert "from bob" in shown
    assert "\x1b[2J" not in shown


def test_mail_for_nobody_and_waits_for_nothing_fail_clearly(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("mail", "send", "eve", "hi").code == 4
    late = aios("mail", "read", "--wait", "0.1")
    assert late.code == 8
    assert "0.1 s" in late.err


def test_a_topic_tells_how_many_it_reached(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("mail", "publish", "news", "it rains").out == "0 received it\n"
    assert aios("mail", "publish", "no topic!", "x").code == 2
