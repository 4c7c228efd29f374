"""aios mail against a kernel that runs."""

import msgspec
from tests.cli.conftest import Aios, Served

from aios.abi.mail import Addressed
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


def test_nothing_within_the_time_and_what_is_no_group_are_told_in_words(
    served: Served, aios: Aios
) -> None:
    assert served.kernel is not None
    assert "no letter within 0.1 s" in aios("mail", "read", "--wait", "0.1").err
    refused = aios("mail", "broadcast", "hi", "--group", "everybody")
    assert (refused.code, "Group::OWNER, Kind::KIND" in refused.err) == (2, True)


def test_a_topic_tells_how_many_it_reached(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("mail", "publish", "news", "it rains").out == "0 received it\n"
    assert aios("mail", "publish", "no topic!", "x").code == 2


def test_dead_letters_are_shown_sent_again_and_dropped(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("kill", "bob").code == 0
    sent = aios("mail", "send", "bob", "too late", "--dead-letter", "--json").rows()[0]
    assert sent["is_dead"] is True
    assert aios("mail", "send", "bob", "lost").code != 0
    assert f"{sent['id']} from init (1)" in aios("mail", "dead").out
    (row,) = aios("mail", "dead", "--json").rows()
    assert row["why"] == "exited"
    assert aios("mail", "resend", str(sent["id"])).code != 0
    again = aios("mail", "resend", str(sent["id"]), "--to", "1", "--json").rows()[0]
    assert again["was"] == sent["id"]
    assert "too late" in aios("mail", "read").out
    other = aios("mail", "send", "bob", "x", "--dead-letter", "--json").rows()[0]
    assert aios("mail", "drop", str(other["id"]), "--json").rows() == [{"dropped": [other["id"]]}]
    assert aios("mail", "dead").out == ""


def test_broadcasts_urgent_letters_and_the_box_itself(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    told = aios("mail", "broadcast", "stop", "--group", "Kind::guest", "--urgent", "--json").rows()
    delivered = msgspec.convert(told[0]["delivered"], list[Addressed])
    assert [each.to for each in delivered] == [pid]
    assert aios("mail", "broadcast", "hello").out == "0 received it\n"
    bob = Mail(served.kernel.gate(Pid(pid)))
    served.portal.call(lambda: bob.receive(is_urgent=True))
    assert aios("mail", "subscribe", "news", "--json").rows() == [{"topics": ["news"]}]
    assert "topics: news" in aios("mail", "box").out
    assert aios("mail", "box", "--json").rows()[0]["n_letters"] == 0
    assert aios("mail", "subscribe", "news", "--off").out == "topics: none\n"
