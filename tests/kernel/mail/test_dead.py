from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.mail.test_post import agent, guest

from aios.abi.deadletters import DeadLetter
from aios.abi.mail import Letter
from aios.abi.types import Pid
from aios.config import Config, Home, KernelConfig
from aios.errors import Conflict, NotFound, ResourceExhausted
from aios.kernel.kernel import open_kernel
from aios.kernel.mail.dead import DeadBox
from aios.sdk.mail import Mail

pytestmark = pytest.mark.anyio


def dead_letter(number: int, body: str = "x") -> DeadLetter:
    letter = Letter(number, Pid(1), "init", Pid(2), body, 0.0)
    return DeadLetter(letter, "full", 0.0)


def test_the_oldest_dead_letters_go_when_there_is_no_room() -> None:
    box = DeadBox(max_letters=3, max_bytes=1_000)
    assert box.put([dead_letter(1), dead_letter(2), dead_letter(3)]) == []
    assert [each.letter.id for each in box.put([dead_letter(4)])] == [1]
    assert [each.letter.id for each in box.put([dead_letter(5, "y" * 5_000)])] == [2, 3, 4]
    box.check_invariants()
    assert len(box) == 1
    box.put_back([dead_letter(4)])
    assert [each.letter.id for each in box] == [4, 5]


async def test_a_letter_that_cannot_be_delivered_dies_if_its_sender_wants_that(
    booted: OpenKernel,
) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=4)) as kernel:
        (_, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        for _ in range(3):
            await ann_mail.send(bob, "fills it")
        read = await ann_mail.send(bob, "0", wants_dead_letter=True, wants_receipt=True)
        full = await ann_mail.send(bob, "1", wants_dead_letter=True)
        assert (await bob_mail.take()).letters[-1].id == read
        for _ in range(3):
            await ann_mail.send(bob, "fills it")
        unread = await ann_mail.send(bob, "2", wants_dead_letter=True, wants_receipt=True)
        waited: list[int] = []

        async def wait_for_room() -> None:
            waited.append(await ann_mail.send(bob, "3", when_full="wait", wants_dead_letter=True))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for_room)
                await anyio.wait_all_tasks_blocked()
                await kernel.signals.kill(kernel.table.get(bob), reason="test")
        late = await ann_mail.send(bob, "4", wants_dead_letter=True)
        found = (await ann_mail.dead()).letters
        told = {each.letter.id: (each.letter.body, each.why) for each in found}
        assert told == {
            full: ("1", "full"),
            unread: ("2", "unread"),
            waited[0]: ("3", "exited"),
            late: ("4", "exited"),
        }
        receipts = {each.reply_to: each.body for each in (await ann_mail.take()).letters}
        assert receipts == {read: "read", unread: "dead"}


async def test_dead_letters_are_seen_by_the_owner_and_those_concerned_alone(
    booted: OpenKernel,
) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (_, ann_mail), (bob, _) = agent(kernel, "ann"), agent(kernel, "bob")
        _, eve_mail = guest(kernel, "eve")
        await ann_mail.send(bob, "fills it")
        number = await ann_mail.send(bob, "secret", wants_dead_letter=True)
        assert (await eve_mail.dead()).letters == ()
        with pytest.raises(NotFound):
            await eve_mail.send_dead(number)
        with pytest.raises(NotFound):  # nobody is asked about what she may not see
            await eve_mail.drop_dead(number)
        assert len(kernel.post.dead.box) == 1
        owner = Mail(kernel.init_gate())
        assert [each.letter.body for each in (await owner.dead()).letters] == ["secret"]
        await owner.drop_dead(number)
        assert (await ann_mail.dead()).letters == ()


async def test_a_dead_letter_is_sent_again_once_and_in_the_name_of_its_sender(
    booted: OpenKernel,
) -> None:
    async with booted(limits=KernelConfig(max_mailbox_letters=1)) as kernel:
        (ann, ann_mail), (bob, bob_mail) = agent(kernel, "ann"), agent(kernel, "bob")
        (cat, cat_mail) = agent(kernel, "cat")
        owner = Mail(kernel.init_gate())
        await ann_mail.send(bob, "first")
        number = await ann_mail.send(bob, "second", wants_dead_letter=True)
        with pytest.raises(ResourceExhausted):
            await owner.send_dead(number)
        assert (await bob_mail.receive()).body == "first"
        again = await owner.send_dead(number)
        letter = await bob_mail.receive()
        assert (letter.id, letter.sender, letter.body) == (again, ann, "second")
        with pytest.raises(NotFound):
            await owner.send_dead(number)
        await kernel.signals.kill(kernel.table.get(bob), reason="test")
        number = await ann_mail.send(bob, "third", wants_dead_letter=True)
        with pytest.raises(Conflict):
            await owner.send_dead(number)
        await owner.send_dead(number, cat)
        assert (await cat_mail.receive()).body == "third"
        assert not kernel.table.get(bob).is_alive


async def test_dead_letters_outlive_the_kernel_and_their_numbers_never_come_again(
    tmp_path: Path,
) -> None:
    config = Config(kernel=KernelConfig(max_mailbox_letters=4))
    async with open_kernel(config, Home(tmp_path), engines={}, is_durable=True) as kernel:
        (bob, _) = agent(kernel, "bob")
        owner = Mail(kernel.init_gate())
        await kernel.signals.kill(kernel.table.get(bob), reason="test")
        kept = await owner.send(bob, "kept", wants_dead_letter=True)
        dropped = await owner.send(bob, "dropped", wants_dead_letter=True)
        await owner.drop_dead(dropped)
    async with open_kernel(config, Home(tmp_path), engines={}, is_durable=True) as kernel:
        owner = Mail(kernel.init_gate())
        assert [each.letter.id for each in (await owner.dead()).letters] == [kept]
        assert await owner.send_dead(kept, 1) > dropped
        kernel.check_invariants()
    async with open_kernel(config, Home(tmp_path), engines={}, is_durable=True) as kernel:
        owner = Mail(kernel.init_gate())
        assert (await owner.dead()).letters == ()
        assert (await owner.receive()).body == "kept"
