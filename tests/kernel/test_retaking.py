"""Functions that programs serve, over the ends of their kernel: each call runs them once, whatever else the program does."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.kernel.test_resume import daemon, owner, pull_the_plug

from aios.abi.tools import ToolRun
from aios.errors import AiosError, ToolFailed
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.blocking import Client

MANIFEST = """\
name = "shop"
[restart]
policy = "on-failure"
"""
BLOCKING = """\
import sys, time
from pathlib import Path
import aios

@aios.tool(effect="irreversible")
def order(what: str) -> str:
    \"\"\"Order something.\"\"\"
    MEANWHILE
    with open(sys.argv[1], "a") as ledger:
        ledger.write(what + "\\n")
    while what == "slow" and not Path(sys.argv[1] + ".go").exists():
        time.sleep(0.01)
    return f"ordered {what} at {time.time()} " + "x" * (100_000 if what == "large" else 0)

with aios.blocking.connect() as client:
    client.tools.serve(order)
"""
ASYNC = """\
import time
import anyio
import aios

paths, clients = [], []

@aios.tool(effect="irreversible")
async def order(what: str) -> str:
    \"\"\"Order something.\"\"\"
    await clients[0].memory.remember(f"order of {what}")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clients[0].memory.remember, f"task for {what}")
        await anyio.to_thread.run_sync(in_a_thread, what)
    with open(paths[0], "a") as ledger:
        ledger.write(what + "\\n")
    return f"ordered {what} at {time.time()}"

def in_a_thread(what):
    with aios.blocking.connect() as client:
        client.memory.remember(f"thread for {what}")

async def chatter(client):
    for number in range(30):
        await client.memory.remember(f"thought {number}")
        await anyio.sleep(0.02)

async def main(client: aios.Client, ledger: str):
    paths.append(ledger)
    clients.append(client)
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.tools.serve, order)
        tasks.start_soon(chatter, client)

aios.run(main)
"""

TALKING = """\
import anyio
import aios

clients, contexts = [], []

@aios.tool(effect="reversible")
async def order(what: str) -> str:
    \"\"\"Tell the assistant.\"\"\"
    client, words = clients[0], what.split()
    async with client.context() as own:
        await own.append("to be forgotten")
    if words[0] == "open":
        context = await client.contexts.open(system=words[1])
        return str(context.id)
    context = client.contexts.get(int(words[0])) if words[0] != "main" else contexts[0]
    await context.chat(words[1])
    said = [message.text() for message in await context.messages()]
    return " ".join(text for text in said if "said" not in text)

async def main(client: aios.Client, ledger: str):
    clients.append(client)
    contexts.append(await client.contexts.open(system="main"))
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.tools.serve, order)
        while True:
            letter = await client.mail.receive()
            await contexts[0].append(letter.body)
            await client.mail.reply(letter, "added")

aios.run(main)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("rt") as folder:
        (folder / "home").mkdir()
        yield folder / "home"


def said_by(client: Client, pid: int) -> str:
    with client.logs(pid) as lines:
        return "\n".join(line.text for line in lines)


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.02)  # noqa: TID251 - another process is waited for


def start(client: Client, home: Path, source: str) -> Path:
    """Start a shop. Returns: where its orders are written down."""
    program, world = home / "shop", home.parent / "world"
    program.mkdir()
    world.mkdir()
    (program / "agent.toml").write_text(MANIFEST)
    (program / "main.py").write_text(source)
    ledger = world / "orders"
    client.spawn(program, str(ledger), cwd=world, write=[world])
    wait_for(lambda: any(tool.name == "shop/order" for tool in client.tools.list()))
    return ledger


def order(client: Client, what: str) -> str:
    return client.tools.run("shop/order", {"what": what}, deadline_s=30).text


def orders(ledger: Path) -> list[str]:
    return ledger.read_text().split()


def notes(client: Client) -> list[str]:
    return sorted(note.text for note in client.memory.notes())


@pytest.mark.parametrize("meanwhile", ["pass", "client.memory.remember(what)"])
def test_what_was_ordered_is_not_ordered_again_under_the_next_kernels_or_by_a_fork(
    home: Path, meanwhile: str
) -> None:
    with daemon(home) as process, owner(home) as client:
        ledger = start(client, home, BLOCKING.replace("MEANWHILE", meanwhile))
        for what in ("a", "large", "b"):
            assert order(client, what).startswith(f"ordered {what}")
        pull_the_plug(process, with_children=True)
    for number in range(2):
        with daemon(home) as process, owner(home) as client:
            order(client, f"next{number}")
            pull_the_plug(process, with_children=True)
    expected = ["a", "large", "b", "next0", "next1"]
    with daemon(home), owner(home) as client:
        (shop,) = (each for each in client.ps() if each.name == "shop")
        fork = client.journal.fork(shop.pid, at=client.journal.read(shop.pid).records[-1].seq)
        wait_for(lambda: "is where it was" in said_by(client, fork.pid))
        order(client, "last")
        assert orders(ledger) == [*expected, "last"]
        assert notes(client) == (sorted([*expected, "last"]) if meanwhile != "pass" else [])


def test_an_order_that_was_cut_off_is_left_to_who_made_it(home: Path) -> None:
    with daemon(home) as process, owner(home) as client:
        ledger = start(client, home, BLOCKING.replace("MEANWHILE", "pass"))
        order(client, "a")
        slow = ToolRun(name="shop/order", arguments={"what": "slow"})
        with suppress(AiosError), client.gate.open_call(slow):
            wait_for(lambda: "slow" in orders(ledger))
            pull_the_plug(process, with_children=True)
    with daemon(home), owner(home) as client:
        order(client, "b")
        assert orders(ledger) == ["a", "slow", "b"]


def test_what_a_function_asks_is_not_taken_for_what_its_program_asks_meanwhile(home: Path) -> None:
    def expected(orders: str) -> list[str]:
        thoughts = (f"thought {number}" for number in range(30))
        kinds = ("order of", "task for", "thread for")
        return sorted([*thoughts, *(f"{kind} {what}" for what in orders for kind in kinds)])

    with daemon(home) as process, owner(home) as client:
        ledger = start(client, home, ASYNC)
        order(client, "a")
        order(client, "b")
        pull_the_plug(process, with_children=True)
    with daemon(home), owner(home) as client:
        order(client, "c")
        wait_for(lambda: len(notes(client)) >= len(expected("abc")))
        order(client, "d")
        assert notes(client) == expected("abcd")
        assert orders(ledger) == ["a", "b", "c", "d"]


def test_what_a_function_said_in_a_context_is_in_it_when_its_program_comes_back(home: Path) -> None:
    def ask(what: str) -> str:
        return client.tools.run("shop/order", {"what": what}).text

    def contexts() -> list[int]:
        return sorted(each.id for each in client.contexts.list_all())

    with daemon(home) as process, owner(home) as client:
        start(client, home, TALKING)
        (shop,) = (each.pid for each in client.ps() if each.name == "shop")
        session = ask("open session")
        for number in range(2):
            ask(f"main function{number}")
            assert client.mail.ask(shop, f"letter{number}", deadline_s=30).body == "added"
            ask(f"{session} word{number}")
        ask("main last")
        before = contexts()
        client.memory.remember("what was said until now is on disk")
        pull_the_plug(process, with_children=True)
    for number in range(2):
        with daemon(home) as process, owner(home) as client:
            more = " more0" if number else ""
            told = ask(f"main more{number}")
            assert told == f"main function0 letter0 function1 letter1 last{more} more{number}"
            assert ask(f"{session} more{number}") == f"session word0 word1{more} more{number}"
            assert contexts() == before
            client.memory.remember("so is this")
            pull_the_plug(process, with_children=True)


def test_a_tool_is_described_when_its_program_has_come_back(home: Path) -> None:
    with daemon(home) as process, owner(home) as client:
        start(client, home, BLOCKING.replace("MEANWHILE", "pass"))
        pull_the_plug(process, with_children=True)
    with daemon(home), owner(home) as client:
        (tool,) = client.tools.describe("shop/order")
        assert tool.description == "Order something."


def test_who_called_a_function_hears_that_its_program_began_anew(home: Path) -> None:
    crash = BLOCKING.replace("MEANWHILE", "what == 'crash' and os._exit(3)")
    with daemon(home, {"AIOS_JOURNAL_IS_ON": "false"}), owner(home) as client:
        start(client, home, crash.replace("import sys", "import os, sys"))
        with pytest.raises(ToolFailed, match="began anew"):
            order(client, "crash")
        assert order(client, "next").startswith("ordered next")


@pytest.mark.parametrize("is_kept", ["true", "false"])
@pytest.mark.parametrize("traits", ['effect="pure"', 'effect="compensable", is_idempotent=True'])
def test_a_function_that_does_no_harm_twice_runs_again_when_its_program_crashed(
    home: Path, traits: str, is_kept: str
) -> None:
    once = "with open(sys.argv[1], 'a') as file: file.write('begun ')\n    orders() == 1 and os._exit(3)"
    source = BLOCKING.replace('effect="irreversible"', traits).replace("MEANWHILE", once)
    count = "def orders():\n    return Path(sys.argv[1]).read_text().count('begun')\n\n"
    source = source.replace("import sys", "import os, sys").replace(
        "@aios.tool", f"{count}@aios.tool"
    )
    with daemon(home, {"AIOS_JOURNAL_IS_ON": is_kept}), owner(home) as client:
        ledger = start(client, home, source)
        assert order(client, "tea").startswith("ordered tea")
        assert orders(ledger) == ["begun", "begun", "tea"]
