"""The account in the end: what is there is compared with what was acknowledged, and nothing is left over."""

from functools import partial

import apsw

from aios.abi.types import Kind, State
from aios.errors import NotFound
from aios.kernel.kernel import Kernel
from aios.kernel.process import INIT_PID, Process
from aios.sdk.client import Client
from aios.testing.limited import check_spent
from aios.testing.world import World

DISK_ENDS = (126, 137)
"""The status of a program that could not be started, or not be taken up, for its disk failed."""
NOT_FORKED = "it could not be forked"
BRANCH = "-branch-"
"""In the names of branches, which leave nothing but what they did outside."""
MAX_LETTERS = 1_000

LEFT = (
    "SELECT path FROM versions WHERE path GLOB '/agents/*-branch-*'",
    "SELECT root FROM usage WHERE root GLOB '/agents/*-branch-*'",
    "SELECT name FROM memory_interactions WHERE name GLOB '*-branch-*'",
    "SELECT text FROM memory_notes n JOIN memory_spaces s ON s.id = n.space WHERE s.name GLOB '*-branch-*'",
)
"""What would be left of branches that were discarded."""
PUT_AWAY = "SELECT path FROM versions WHERE path GLOB '/checkpoints/*'"
"""What would be left of a checkpoint that was removed."""


async def settle_account(world: World, kernel: Kernel, owner: Client) -> None:
    """Compare what is there with what was acknowledged, and look for what is left over."""
    names = {process.pid: process.name for process in kernel.table}
    letters = [
        (names.get(letter.sender, ""), letter.body)
        for letter in (await owner.mail.take(limit=MAX_LETTERS)).letters
    ]
    notes = [(note.origin.name, note.text) async for note in owner.memory.notes()]
    for agent, thing in sorted(world.ledger.accounts):
        match thing:
            case "mail":
                found = [what for who, what in letters if who == agent]
            case "notes":
                found = sorted(what for who, what in notes if who == agent)
            case "tool":
                found = world.outside.of(agent)
            case "file":
                found = await _lines(owner, f"/agents/{agent}/log.txt")
            case _:
                found = await _lines(owner, f"/agents/{agent}/{thing.replace(' ', '-')}.txt")
        may_be_lost = BRANCH in agent and thing != "tool"
        world.ledger.compare(agent, thing, found, may_be_lost=may_be_lost)
    for process in kernel.table:
        if process.kind is Kind.PROGRAM and BRANCH not in process.name:
            _ended_well(world, process)
            if process.name.startswith("l"):
                check_spent(world, kernel, process)
    await _branches_left_nothing(world, kernel, owner)
    _nothing_left_over(world, kernel)


def _ended_well(world: World, process: Process) -> None:
    """A program ended as it wanted to, unless its disk failed."""
    end, broken = process.exit, world.ledger.broken
    if process.state is not State.EXITED or end is None:
        return
    if process.name.startswith("e"):  # somebody ended it: it never does by itself
        return
    if end.reason == NOT_FORKED:  # its source's journal was forgotten meanwhile
        return
    if end.status and not (end.status in DISK_ENDS and world.injected["disk error"]):
        broken(f"{process.name} ended with {end}")
    if not end.status and process.name.startswith("b") and "|" in end.result:
        word, _, files = end.result.partition("|")
        index, _, is_written = word.partition(":")
        ways = [name for name in files.split() if name.startswith("way-")]
        if ways != [f"way-{index}.txt"] * (is_written == "1") and (word or ways):
            broken(f"{process.name}: `{word}` was committed, and it has {files}")


async def _branches_left_nothing(world: World, kernel: Kernel, owner: Client) -> None:
    """Of branches that were not committed, and of checkpoints that were removed, nothing is there."""
    groups = await owner.branches.list_all()
    queries = [*LEFT] if all(group.state != "open" for group in groups) else []
    if not await owner.checkpoints.list_all():
        queries.append(PUT_AWAY)
    for query in queries:
        left = await kernel.db.read(partial(_rows, query))
        if left:
            world.ledger.broken(f"left over: {left}")


def _rows(query: str, connection: apsw.Connection) -> list[object]:
    return list(connection.execute(query))


def _nothing_left_over(world: World, kernel: Kernel) -> None:
    """Invariants 7 and 9: nothing is held by nobody, and no more is spent than was done."""
    broken = world.ledger.broken
    if n_open := sum(len(process.runs) for process in kernel.table if process.pid != INIT_PID):
        broken(f"{n_open} calls are in flight in the end")
    for name, lane in kernel.scheduler.statistics().items():
        if lane.n_granted:
            broken(f"{lane.n_granted} turns of {name} are held in the end")
    for info in kernel.cores.infos():
        if info.n_running:
            broken(f"{info.n_running} generations of {info.name} run in the end")
    budget = kernel.budgets.info(INIT_PID)
    if budget.held.tool_calls or budget.held.calls or budget.held.children:
        broken(f"{budget.held} is held in the end")


async def _lines(owner: Client, path: str) -> list[str]:
    try:
        return (await owner.files.read_text(path)).split("\n")[:-1]
    except NotFound:
        return []
