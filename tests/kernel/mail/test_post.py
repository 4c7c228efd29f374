import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import declared, echo, offer, run_tool

from aios.abi.access import Decision, Request
from aios.abi.calls import ExitSelf, GetPid
from aios.abi.mail import EXIT_TOPIC, KERNEL_TOPICS, ChildExit, Send
from aios.abi.types import Pid
from aios.config import Config, Home, KernelConfig
from aios.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    InvalidCall,
    NotFound,
    ProcessGone,
    ResourceExhausted,
)
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.mail.box import URGENT_ROOM
from aios.kernel.process import Run
from aios.sdk.client import Client
from aios.sdk.mail import Mail

if TYPE_CHECKING:
    from aios.abi.mail import Letter

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str) -> tuple[Pid, Mail]:
    """A process of the owner's, and its mail."""
    pid = kernel.spawn_task(name, idle)
    return pid, Mail(kernel.gate(pid))


def guest(kernel: Kernel, name: str) -> tuple[Pid, Mail]:
    """A process that belongs to itself, and its mail."""
    pid = kernel.admit(name)[0].pid
    return pid, Mail(kernel.gate(pid))


async def test_a_letter_arrives_once_and_says_who_wrote_it(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (ann, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        letter_id = await ann_mail.send(bob, "hello")
        got = await bob_mail.receive()
        assert (got.id, got.sender, got.sender_name, got.body) == (letter_id, ann, "ann", "hello")
        with pytest.raises(DeadlineExceeded):
            await bob_mail.receive(deadline_s=0.01)


async def test_receive_waits_for_what_matches(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (ann, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        answers: list[Letter] = []

        async def ask() -> None:
            answers.append(await ann_mail.ask(bob, "how many?"))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                question = await bob_mail.receive()
                await bob_mail.send(ann, "something else")
                await bob_mail.reply(question, "seven")
        assert answers[0].body == "seven"
        assert [each.body for each in (await ann_mail.take()).letters] == ["something else"]


async def test_a_full_mailbox_refuses_or_makes_the_sender_wait(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=2)) as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann_mail.send(bob, "1")
        await ann_mail.send(bob, "2")
        with pytest.raises(ResourceExhausted, match="2 letters"):
            await ann_mail.send(bob, "3")

        async def send(body: str) -> None:
            await ann_mail.send(bob, body, when_full="wait")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for body in ("3", "4", "5"):
                    tasks.start_soon(send, body)
                    await anyio.wait_all_tasks_blocked()
                bodies = [(await bob_mail.receive()).body for _ in range(5)]
        assert bodies == ["1", "2", "3", "4", "5"]


async def test_who_does_not_wait_cannot_overtake_who_does(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann_mail.send(bob, "first")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: ann_mail.send(bob, "second", when_full="wait"))
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(ResourceExhausted):
                    await ann_mail.send(bob, "third")
                assert (await bob_mail.receive()).body == "first"
        assert (await bob_mail.receive()).body == "second"


async def test_a_sender_that_is_stopped_while_it_waits_for_room_keeps_its_place_and_is_passed_over(
    booted: OpenKernel,
) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        (eve, eve_mail), owner = agent(kernel, "eve"), Client(kernel.init_gate())
        await ann_mail.send(bob, "1")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for mail, body in ((eve_mail, "5"), (ann_mail, "2")):
                    tasks.start_soon(partial(mail.send, bob, body, when_full="wait"))
                    await anyio.wait_all_tasks_blocked()
                await owner.stop(eve)
                assert [(await bob_mail.receive()).body for _ in range(2)] == ["1", "2"]
                await ann_mail.send(bob, "3")
                tasks.start_soon(partial(ann_mail.send, bob, "4", when_full="wait"))
                await anyio.wait_all_tasks_blocked()
                await owner.cont(eve)
                await anyio.wait_all_tasks_blocked()
                assert [(await bob_mail.receive()).body for _ in range(3)] == ["3", "5", "4"]


async def test_who_waits_for_room_goes_on_when_letters_are_taken_back(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (ann, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        (_, eve_mail) = agent(kernel, "eve")
        await ann_mail.send(bob, "of a branch")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(eve_mail.send, bob, "stays", when_full="wait"))
                await anyio.wait_all_tasks_blocked()
                kernel.post.withdraw([ann])
                assert (await bob_mail.receive()).body == "stays"


async def test_the_dead_get_no_mail_and_stay_dead(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (_, ann_mail), (bob, _) = agent(kernel, "ann"), agent(kernel, "bob")
        await ann_mail.send(bob, "never read", wants_receipt=True)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:

                async def wait_for_room() -> None:
                    with pytest.raises(Conflict, match="has exited"):
                        await ann_mail.send(bob, "too late", when_full="wait")

                tasks.start_soon(wait_for_room)
                await anyio.wait_all_tasks_blocked()
                await kernel.signals.kill(kernel.table.get(bob), reason="test")
        with pytest.raises(Conflict):
            await ann_mail.send(bob, "hello?")
        receipt = await ann_mail.receive(topic="receipt")
        assert (receipt.body, receipt.sender) == ("undelivered", bob)
        assert not kernel.table.get(bob).is_alive
        with pytest.raises(NotFound):
            await ann_mail.send(9999, "nobody")


async def test_a_receipt_tells_that_a_letter_was_read(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        letter_id = await ann_mail.send(bob, "read me", wants_receipt=True)
        assert (await ann_mail.take()).letters == ()
        await bob_mail.receive()
        receipt = await ann_mail.receive()
        assert (receipt.topic, receipt.reply_to, receipt.body) == ("receipt", letter_id, "read")


async def test_a_stranger_may_only_be_answered(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (ann, ann_mail), (eve, eve_mail) = agent(kernel, "ann"), guest(kernel, "eve")
        with pytest.raises(AccessDenied, match="may not write"):
            await eve_mail.send(ann, "let me in")
        with pytest.raises(AccessDenied):
            await ann_mail.send(eve, "who are you?")
        owner = Mail(kernel.init_gate())
        await owner.send(eve, "hello")
        await eve_mail.reply(await eve_mail.receive(), "hello, owner")
        assert (await owner.receive()).body == "hello, owner"


async def test_a_topic_reaches_those_who_subscribe_and_belong_to_the_same_owner(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        (_, ann_mail), (_, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        _, eve_mail = guest(kernel, "eve")
        for mail in (ann_mail, bob_mail, eve_mail):
            await mail.subscribe("news")
        assert (await ann_mail.publish("news", "it rains")).n_delivered == 1
        got = await bob_mail.receive(topic="news")
        assert got.body == "it rains"
        assert (await eve_mail.take()).letters == ()
        await bob_mail.subscribe("news", is_on=False)
        assert (await ann_mail.publish("news", "it snows")).n_delivered == 0
        assert (await ann_mail.statistics()).topics == ("news",)


async def test_a_receiver_that_is_cancelled_has_taken_nothing(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bob_mail.receive)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await ann_mail.send(bob, "still here")
        assert (await bob_mail.receive()).body == "still here"


async def test_a_stopped_process_takes_no_letter_until_it_goes_on(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        got: list[Letter] = []

        async def receive() -> None:
            got.append(await bob_mail.receive())

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                await kernel.signals.stop(kernel.table.get(bob))
                await ann_mail.send(bob, "later")
                await anyio.wait_all_tasks_blocked()
                assert not got
                kernel.signals.cont(kernel.table.get(bob))
        assert [each.body for each in got] == ["later"]


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_doubled_or_out_of_order_while_processes_die(
    booted: OpenKernel, seed: int
) -> None:
    """Clients write to each other, with waits, cancels and kills; each sender's letters to one receiver keep their order."""
    draw = random.Random(seed)  # noqa: S311 - the seed is in the test's name
    n_clients, n_each = 8, 60
    async with booted(limits=KernelConfig(max_mailbox_letters=4)) as kernel:
        clients = [agent(kernel, f"c{number}") for number in range(n_clients)]
        sent: dict[tuple[int, int], list[str]] = {}
        got: dict[tuple[int, int, bool], list[str]] = {}

        async def write(pid: Pid, mail: Mail) -> None:
            for number in range(n_each):
                to = draw.choice([other for other, _ in clients if other != pid])
                body, is_urgent = f"{pid}-{number}", draw.random() < 0.2
                with anyio.move_on_after(0.002 if draw.random() < 0.1 else 5) as scope:
                    try:
                        await mail.send(
                            to,
                            body,
                            when_full="wait",
                            is_urgent=is_urgent,
                            wants_dead_letter=draw.random() < 0.5,
                        )
                    except ProcessGone:
                        return
                    except Conflict:
                        continue
                if not scope.cancelled_caught:
                    sent.setdefault((pid, to), []).append(body)

        async def read(pid: Pid, mail: Mail) -> None:
            while True:
                try:
                    letter = await mail.receive()
                except ProcessGone:
                    return
                lane = (letter.sender, pid, letter.is_urgent)
                got.setdefault(lane, []).append(letter.body)

        async def kill_some() -> None:
            for pid, _ in clients[:2]:
                await anyio.sleep(draw.random() * 0.02)
                await kernel.signals.kill(kernel.table.get(pid), reason="test")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as readers:
                for pid, mail in clients:
                    readers.start_soon(read, pid, mail)
                async with anyio.create_task_group() as writers:
                    writers.start_soon(kill_some)
                    for pid, mail in clients:
                        writers.start_soon(write, pid, mail)
                while kernel.post.statistics().n_waiting:
                    await anyio.sleep(0.001)
                kernel.check_invariants()
                readers.cancel_scope.cancel()
        living = {pid for pid, _ in clients[2:]}
        read_by: dict[int, list[str]] = {pid: [] for pid, _ in clients}
        for (_, receiver, _), bodies in got.items():
            numbers = [int(body.split("-")[1]) for body in bodies]
            assert numbers == sorted(numbers), "letters came out of order"
            read_by[receiver] += bodies
        for receiver, bodies in read_by.items():
            assert len(bodies) == len(set(bodies)), "a letter came twice"
            for sender in living - {receiver} if receiver in living else set():
                assert set(sent.get((sender, receiver), [])) <= set(bodies), "a letter is lost"
        dead = {each.letter.body for each in (await Mail(kernel.init_gate()).dead()).letters}
        assert dead.isdisjoint(body for bodies in read_by.values() for body in bodies)


async def test_a_parent_that_asked_is_told_of_each_child_that_ends(booted: OpenKernel) -> None:
    async with booted() as kernel:
        parent, mail = agent(kernel, "parent")
        bystander, other = agent(kernel, "bystander")
        await mail.subscribe(EXIT_TOPIC)
        await other.subscribe(EXIT_TOPIC)
        row = kernel.table.get(parent)
        children = [kernel.admit(f"child{n}", parent=row)[0].pid for n in range(3)]
        grandchild = kernel.spawn_task("grandchild", idle, ppid=children[0])
        await kernel.gate(children[1]).call(ExitSelf(status=3, result="done"))
        await kernel.signals.kill(kernel.table.get(children[0]), reason="enough")
        told = [msgspec.json.decode(each.body, type=ChildExit) for each in await taken(mail)]
        assert told == [
            ChildExit(children[1], "child1", 3, "", "done"),
            ChildExit(children[0], "child0", 137, "enough"),
        ]
        assert await taken(other) == ()
        assert kernel.table.get(grandchild).exit is not None
        assert bystander != parent


async def taken(mail: Mail) -> "tuple[Letter, ...]":
    return (await mail.take()).letters


async def test_nobody_writes_in_the_name_of_the_kernel(booted: OpenKernel) -> None:
    async with booted() as kernel:
        _, mail = agent(kernel, "ann")
        for topic in KERNEL_TOPICS:
            with pytest.raises(InvalidCall, match="kernel alone"):
                await mail.publish(topic, "forged")


async def test_an_urgent_letter_stands_before_others_and_finds_room(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=2)) as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        bodies = ["1", "2"]
        for body in bodies:
            await ann_mail.send(bob, body)
        urgent = [f"u{number}" for number in range(URGENT_ROOM)]
        for body in urgent:
            await ann_mail.send(bob, body, is_urgent=True)
        with pytest.raises(ResourceExhausted):
            await ann_mail.send(bob, "one too many", is_urgent=True)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for body in ("3", "u-last", "u-very-last"):
                    tasks.start_soon(
                        lambda body: ann_mail.send(
                            bob, body, when_full="wait", is_urgent=body.startswith("u")
                        ),
                        body,
                    )
                    await anyio.wait_all_tasks_blocked()
                first = [(await bob_mail.receive()).body for _ in range(URGENT_ROOM - 1)]
                await anyio.wait_all_tasks_blocked()
                rest = [(await bob_mail.receive()).body for _ in range(6)]
        assert first == urgent[:-1]
        assert rest == [urgent[-1], "u-last", "u-very-last", "1", "2", "3"]


async def test_each_answer_tells_how_many_urgent_letters_wait(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        gate = kernel.gate(bob)
        await ann_mail.send(bob, "no hurry")
        assert (await gate.call(GetPid())).n_urgent == 0
        await ann_mail.send(bob, "stop", is_urgent=True)
        assert (await gate.call(GetPid())).n_urgent == 1
        assert (await bob_mail.receive(is_urgent=True)).body == "stop"
        assert (await gate.call(GetPid())).n_urgent == 0
        assert (await kernel.init_gate().call(GetPid())).n_urgent == 0


async def test_a_broadcast_reaches_a_group_as_far_as_its_sender_may_write(
    booted: OpenKernel,
) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (ann, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        (cat, cat_mail), (dan, _) = agent(kernel, "cat"), agent(kernel, "dan")
        eve, eve_mail = guest(kernel, "eve")
        owner = Mail(kernel.init_gate())
        await kernel.signals.kill(kernel.table.get(dan), reason="test")
        await owner.send(cat, "fills it")
        told = await ann_mail.broadcast("lunch", wants_receipt=True)
        assert [each.to for each in told.delivered] == [1, bob]
        assert (told.dead, told.n_refused) == ((), 1)
        assert (await bob_mail.receive()).id == told.delivered[1].id
        assert (await ann_mail.receive(topic="receipt")).reply_to == told.delivered[1].id
        assert (await ann_mail.broadcast("psst", "Kind::guest")).delivered == ()
        assert [each.to for each in (await owner.broadcast("hi", "Kind::guest")).delivered] == [eve]
        told = await owner.broadcast("again", "Kind::task", wants_dead_letter=True, is_urgent=False)
        assert [each.to for each in told.delivered] == [ann, bob]
        assert [each.to for each in told.dead] == [cat]
        assert (await eve_mail.broadcast("let me in", "Group::owner")).delivered == ()
        assert (await cat_mail.take()).letters[0].body == "fills it"
        assert not kernel.table.get(dan).is_alive
        with pytest.raises(InvalidCall):
            await ann_mail.broadcast("x", "everybody")


MAIL_POLICIES = """
@id("ask") @decide("ask") permit(principal == Agent::"ann", action == Action::"mail.use", resource == Process::"bob");
@id("not-boss") forbid(principal in Kind::"task", action == Action::"mail.use", resource == Process::"boss");
"""


async def test_policies_about_mail_are_asked_about_each_who_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "mine.cedar").write_text(MAIL_POLICIES)
    asked: list[str] = []

    async def yes(_: Run, request: Request, __: Decision) -> None:
        asked.append(f"{request.action} {request.resource.id} {request.effect}")

    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        kernel.access.on_ask = yes
        (ann, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        (boss, boss_mail), (cid, cid_mail) = agent(kernel, "boss"), agent(kernel, "cid")
        await ann_mail.send(bob, "who is asked about may be written to after a yes")
        assert asked == ["mail.use bob compensable"]
        assert (await bob_mail.receive()).sender == ann
        await ann_mail.send(cid, "nobody is asked")
        for mail in (boss_mail, bob_mail, cid_mail):
            await mail.subscribe("news")
        await kernel.init_gate().call(Send(to=boss, body="write to whom you may"))
        await boss_mail.send(ann, "answer me")
        for attempt in (ann_mail.send(boss, "no"), ann_mail.reply(await ann_mail.receive(), "no")):
            with pytest.raises(AccessDenied, match=r"mine\.not-boss forbids ann"):
                await attempt
        published = await ann_mail.publish("news", "for those to whom each may write unasked")
        told = await ann_mail.broadcast("the same")
        assert (published.n_delivered, [each.to for each in told.delivered]) == (1, [1, cid])
        assert len(asked) == 1
        assert [each.body for each in (await boss_mail.take()).letters] == ["write to whom you may"]


async def test_a_ban_on_mail_hides_no_tools(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    ban = 'forbid(principal in Kind::"task", action == Action::"mail.use", resource);'
    (tmp_path / "policies" / "mine.cedar").write_text(ban)
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        await offer(kernel, "base", echo, declared("look"))
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        assert (await run_tool(ann, "base/look")).text
