from pathlib import Path

import anyio
import numpy as np
import pytest
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import ExitSelf, GetPid, Kill, Wait
from aios.abi.types import Exit, Pid
from aios.config import Config, EngineConfig, Home, KernelConfig
from aios.errors import Conflict, InvalidCall, NotFound, ProcessGone, Unauthenticated
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel

pytestmark = pytest.mark.anyio


async def test_a_token_stands_for_its_process_and_no_other_string_does(booted: OpenKernel) -> None:
    async with booted() as kernel:
        process, token = kernel.admit("guest")
        assert kernel.authenticate(token) == process.pid
        assert kernel.authenticate(kernel.owner_token) == 1
        for wrong in ("", "none", token[:-1], token + "x", "\ud800", "x" * 100_000):
            with pytest.raises(Unauthenticated):
                kernel.authenticate(wrong)


async def test_the_owners_token_with_a_name_is_a_guest_that_is_made_once(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pid = kernel.authenticate(f"{kernel.owner_token}.alice")
        assert kernel.authenticate(f"{kernel.owner_token}.alice") == pid
        assert kernel.table.get(pid).name == "alice"
        kernel.spawn_task("busy", _forever)
        for name in ("", "a b", "x" * 65, "../x", "init", "owner", "busy"):
            with pytest.raises(Unauthenticated):
                kernel.authenticate(f"{kernel.owner_token}.{name}")
        guest_token = kernel.admit("bob")[1]
        with pytest.raises(Unauthenticated):
            kernel.authenticate(f"{guest_token}.mallory")


async def test_a_guest_owns_itself_and_can_pass_for_nobody_else(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with pytest.raises(InvalidCall, match="owns the kernel"):
            kernel.admit("owner")
        first, second = kernel.admit("bob")[0], kernel.admit("bob")[0]
        assert (first.owner, second.owner) == ("bob", second.name)
        assert first.owner != second.owner


async def test_a_named_guest_that_was_killed_stays_so(booted: OpenKernel) -> None:
    async with booted() as kernel:
        token = f"{kernel.owner_token}.alice"
        pid = kernel.authenticate(token)
        await kernel.init_gate().call(Kill(pid=pid))
        with pytest.raises(ProcessGone):
            await kernel.gate(kernel.authenticate(token)).call(GetPid())


async def test_the_name_of_a_guest_that_is_forgotten_is_free_again(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_exited=1)) as kernel:
        alice, bob = (
            kernel.authenticate(f"{kernel.owner_token}.{name}") for name in ("alice", "bob")
        )
        for pid in (alice, bob):
            await kernel.init_gate().call(Kill(pid=pid))
        again = kernel.authenticate(f"{kernel.owner_token}.alice")
        assert again not in (alice, bob)
        assert kernel.authenticate(f"{kernel.owner_token}.bob") == bob, "it is still remembered"


async def _forever(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def test_a_new_owner_token_voids_the_old_one(booted: OpenKernel) -> None:
    async with booted() as kernel:
        old = kernel.owner_token
        kernel.set_owner_token("aios_new")
        assert kernel.authenticate("aios_new") == 1
        with pytest.raises(Unauthenticated):
            kernel.authenticate(old)


async def test_a_task_that_raises_ends_alone_and_its_error_is_its_exit(booted: OpenKernel) -> None:
    async def broken(_: LocalGate) -> None:
        raise LookupError("gone")

    async def faulty(gate: LocalGate) -> None:
        await gate.call(Wait(pid=Pid(999)))

    with anyio.fail_after(30):
        async with booted() as kernel:
            first, second = kernel.spawn_task("broken", broken), kernel.spawn_task("faulty", faulty)
            gate = kernel.init_gate()
            assert (await gate.call(Wait(pid=first))).value.exit == Exit(1, "LookupError: gone")
            assert (
                await gate.call(Wait(pid=second))
            ).value.exit.reason == "not_found: no process 999"
            assert kernel.table.get(first).log.lines[0].text == "LookupError: gone"


async def test_leaving_the_kernel_kills_what_still_runs(booted: OpenKernel) -> None:
    ended: list[str] = []

    async def talk(gate: LocalGate) -> None:
        try:
            await gate.call(chat())
        finally:
            ended.append("cleaned up")

    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel:
            kernel.spawn_task("talker", talk)
            await anyio.wait_all_tasks_blocked()
    assert ended == ["cleaned up"]


async def test_draining_lets_calls_in_flight_end(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=30)) as kernel, anyio.create_task_group() as tasks:
            texts: list[str] = []

            async def talk() -> None:
                texts.append((await kernel.init_gate().call(chat())).value.message.text())

            tasks.start_soon(talk)
            await anyio.wait_all_tasks_blocked()
            await kernel.drain(5)
            await anyio.wait_all_tasks_blocked()
            assert len(texts) == 1


async def test_the_configured_engine_is_started_in_the_background(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        config = Config(engine=EngineConfig(kind="scripted"))
        async with open_kernel(config, Home(tmp_path)) as kernel:
            answer = (await kernel.init_gate().call(chat())).value
            assert answer.model == "scripted"


async def test_without_an_engine_the_kernel_still_serves(tmp_path: Path) -> None:
    async with open_kernel(Config(engine=EngineConfig(kind="none")), Home(tmp_path)) as kernel:
        assert (await kernel.init_gate().call(GetPid())).value.pid == 1
        with pytest.raises(NotFound):
            kernel.gate(Pid(5))


async def test_the_tokens_of_guests_that_are_forgotten_are_void(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_exited=1)) as kernel:
        guests = [kernel.admit(f"guest{number}") for number in range(3)]
        for process, _ in guests:
            await kernel.gate(process.pid).call(ExitSelf())
        with pytest.raises(Unauthenticated):
            kernel.authenticate(guests[0][1])
        last, token = guests[2]
        assert kernel.authenticate(token) == last.pid, "it is told that it has exited"


async def test_pages_are_found_again_after_a_clean_restart(tmp_path: Path) -> None:
    config, tokens = Config(engine=EngineConfig(kind="none")), np.arange(8, dtype=np.int32)
    async with open_kernel(config, Home(tmp_path)) as kernel:
        store = kernel.contexts.open_pages(fingerprint="m", page_tokens=4, page_bytes=64)
        first, second = store.keys(tokens)
        assert store.add(first, None, lambda page: page.fill(1))
        assert store.add(second, first, lambda page: page.fill(2))
    async with open_kernel(config, Home(tmp_path)) as kernel:
        store = kernel.contexts.open_pages(fingerprint="m", page_tokens=4, page_bytes=64)
        assert [int(page[0]) for page in store.acquire(store.keys(tokens))] == [1, 2]


async def test_a_second_kernel_on_the_same_home_is_refused_its_database(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with open_kernel(Config(), home, engines={}) as first:
        await first.db.open()
        async with open_kernel(Config(), home, engines={}, embedded=True) as second:
            with pytest.raises(Conflict, match="another kernel"):
                await second.db.open()
    async with open_kernel(Config(), home, engines={}) as third:
        await third.db.open()


async def test_a_kernel_that_forgets_ended_processes_while_it_ends_still_ends(
    booted: OpenKernel,
) -> None:
    async def end(_: LocalGate) -> None:
        return

    async def stay(_: LocalGate) -> None:
        await anyio.sleep_forever()

    async with booted(limits=KernelConfig(max_exited=2)) as kernel:
        pids = [kernel.spawn_task("stay", stay) for _ in range(3)]
        ended = [kernel.spawn_task("end", end) for _ in range(2)]
        with anyio.fail_after(30):
            for pid in ended:
                await kernel.table.get(pid).wait_ended()
    assert not any(kernel.table.find(pid) for pid in ended), "they were forgotten on the way"
    assert pids
