"""Calls that are cut off at each step of their cure: what a tool did to the world is there once, or the program is told that nobody knows."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import anyio
import pytest
from tests.kernel.test_programs import ONCE, booted, home, program, work
from tests.kernel.test_resume import NOTHING, daemon, owner, said_by

from aios.abi.approvals import Approval
from aios.abi.recovery import Restart
from aios.abi.tools import EffectName, ToolDeclaration, ToolRegister, Traits
from aios.abi.types import ProcessInfo
from aios.errors import InvalidCall
from aios.kernel.gate import LocalGate
from aios.kernel.tools.builtin.making import make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job
from aios.sdk.blocking import Client
from aios.sdk.client import Client as AsyncClient

__all__ = ["home"]

pytestmark = pytest.mark.anyio

MANIFEST = """\
name = "shop/{name}"
description = "{name}"
command = ["{script}", "{name}", "{{item}}", "{{key}}"]
write = ["{world}"]
[parameters]
type = "object"
required = ["item"]
properties.item = {{ type = "string" }}
properties.key = {{ type = "string" }}
additionalProperties = false
[traits]
key = "key"
{traits}
"""
SCRIPT = """\
#!/bin/sh
# One line a step. Where the world has a file `stop NAME STEP`, that step waits, once, until its kernel has been killed.
cd "{world}"
pause() {{
    echo "$1 $2 $3" >> steps
    if [ -e "stop $1 $2" ]; then rm "stop $1 $2"; touch paused; while :; do sleep 0.05; done; fi
}}
case "$1" in
    order|set|send) pause "$1" before "$3"; echo "$2 $3" >> effects; pause "$1" after "$3" ;;
    cancel)
        pause cancel before "$3"
        grep -vxF "$2 $3" effects > left; mv left effects
        pause cancel after "$3" ;;
    broken) echo no >&2; exit 3 ;;
esac
echo done
"""
TOOLS = MappingProxyType({
    "order": 'effect = "compensable"\nundo = "shop/cancel"',
    "cancel": 'effect = "compensable"',
    "set": 'effect = "reversible"\nis_idempotent = true',
    "send": 'effect = "compensable"',
    "broken": 'effect = "compensable"',
})  # fmt: skip
BUYER = """\
    from aios.errors import OutcomeUnknown
    try:
        said = client.tools.run("shop/{tool}", {{"item": "tea"}}).text.strip()
    except OutcomeUnknown as error:
        said = error.message
    client.files.append("log.txt", "bought\\n")
    client.exit(0, said)
"""


class World:
    """What the tools of a shop did, and where their next run waits to be killed."""

    def __init__(self, home: Path, tools: dict[str, str]) -> None:
        self.folder = home / "world"
        self.folder.mkdir()
        script = self.folder / "shop"
        script.write_text(SCRIPT.format(world=self.folder))
        script.chmod(0o755)
        (self.folder / "effects").touch()
        (home / "tools").mkdir()
        for name, traits in tools.items():
            text = MANIFEST.format(name=name, script=script, world=self.folder, traits=traits)
            (home / "tools" / f"{name}.toml").write_text(text)

    def stop_at(self, step: str) -> None:
        (self.folder / "paused").unlink(missing_ok=True)
        (self.folder / f"stop {step}").touch()

    @property
    def is_paused(self) -> bool:
        return (self.folder / "paused").exists()

    def lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()

    @property
    def steps(self) -> list[str]:
        return [line.rpartition(" ")[0] for line in self.lines("steps")]


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aios-c-", dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def killed_at(
    world: World, place: Path, step: str, more: Mapping[str, str] = NOTHING
) -> Iterator[Client]:
    """A daemon that is killed when a tool has come to a step."""
    world.stop_at(step)
    with daemon(place, more) as process:
        with owner(place) as client:
            yield client
            wait_until(lambda: world.is_paused)
        process.kill()
        process.join()


def wait_until(is_so: object) -> None:
    assert callable(is_so)
    with anyio.from_thread.start_blocking_portal() as portal:

        async def wait() -> None:
            with anyio.fail_after(60):
                while not is_so():
                    await anyio.sleep(0.02)

        portal.call(wait)


def buy(client: Client, place: Path, tool: str) -> None:
    client.spawn(program(place, BUYER.format(tool=tool)), restart=Restart(policy="on-failure"))


def end_of(client: Client) -> tuple[ProcessInfo, str]:
    (agent,) = [each for each in client.ps(include_ended=True) if each.name == "agent"]
    end = client.wait(agent.pid).exit
    assert end.status == 0, said_by(client, agent)
    return agent, end.result


def rows_of(client: Client, agent: ProcessInfo) -> list[tuple[str, str]]:
    return [(each.call, each.outcome) for each in client.journal.read(agent.pid).records]


@pytest.mark.parametrize("step", ["order before", "order after"])
def test_what_was_cut_off_is_undone_and_made_again(place: Path, step: str) -> None:
    world = World(place, dict(TOOLS))
    with killed_at(world, place, step) as client:
        buy(client, place, "order")
    with daemon(place), owner(place) as client:
        agent, said = end_of(client)
        assert said == "done"
        assert len(world.lines("effects")) == 1
        told = said_by(client, agent)
        assert (
            "call 1 (tool_run) was cut off; shop/cancel has undone it, and it is made again" in told
        )
        rows = client.journal.read(agent.pid).records
        assert [(each.seq, each.call, each.outcome, each.within) for each in rows[:3]] == [
            (1, "tool_run", "undone", 0),
            (2, "tool_run", "done", 1),
            (3, "tool_run", "done", 0),
        ]
        first = world.lines("steps")[0].split()[-1]
        keys = [line.split()[-1] for line in world.lines("steps") if line.startswith("cancel")]
        assert set(keys) == {first}, "an undo is told which call it undoes"
        assert world.lines("effects")[0].split()[-1] != first, "and that key is not used again"


@pytest.mark.parametrize("steps", [
    ["order after", "cancel before"],
    ["order after", "cancel after"],
    ["order after", "cancel after", "cancel before", "order before"],
    ["order after", "order after", "order after"],
])  # fmt: skip
def test_a_kill_in_the_middle_of_a_cure_leads_to_one_effect(
    place: Path, steps: Sequence[str]
) -> None:
    world = World(place, dict(TOOLS))
    for number, step in enumerate(steps):
        with killed_at(world, place, step) as client:
            if not number:
                buy(client, place, "order")
    with daemon(place), owner(place) as client:
        assert end_of(client)[1] == "done"
        assert len(world.lines("effects")) == 1
        assert world.steps[-2:] == ["order before", "order after"]


def test_what_may_be_made_twice_is_made_again_with_the_same_key(place: Path) -> None:
    world = World(place, dict(TOOLS))
    for number, step in enumerate(["set after", "set before", "set after"]):
        with killed_at(world, place, step) as client:
            if not number:
                buy(client, place, "set")
    with daemon(place), owner(place) as client:
        agent, said = end_of(client)
        assert said == "done"
        assert len(set(world.lines("effects"))) == 1, "each time with the same key"
        assert rows_of(client, agent)[0] == ("tool_run", "done")


def test_what_nothing_undoes_is_unknown(place: Path) -> None:
    world = World(place, dict(TOOLS))
    with killed_at(world, place, "send after") as client:
        buy(client, place, "send")
    with daemon(place), owner(place) as client:
        assert "is not done again" in end_of(client)[1]
        assert len(world.lines("effects")) == 1


@pytest.mark.parametrize("how", ["it fails", "it is gone", "it is not allowed"])
def test_where_the_undo_cannot_be_the_program_is_told_why(place: Path, how: str) -> None:
    tools = dict(TOOLS)
    if how == "it fails":
        tools["order"] = 'effect = "compensable"\nundo = "shop/broken"'
    world = World(place, tools)
    with killed_at(world, place, "order after") as client:
        buy(client, place, "order")
    if how == "it is gone":
        (place / "tools" / "cancel.toml").unlink()
    if how == "it is not allowed":
        (place / "policies").mkdir(exist_ok=True)
        (place / "policies" / "no.cedar").write_text(
            'forbid (principal, action == Action::"tool.run", resource == Tool::"shop/cancel");'
        )
    with daemon(place), owner(place) as client:
        said = end_of(client)[1]
        why = {
            "it fails": "its undo shop/broken failed: shop/broken ended with status 3: no",
            "it is gone": "its undo shop/cancel failed: there is no tool shop/cancel",
            "it is not allowed": "its undo shop/cancel failed: process",
        }[how]
        assert "may have happened, and is not done again" in said
        assert why in said
        assert len(world.lines("effects")) == 1


@pytest.mark.parametrize("answer", ["once", "deny"])
def test_an_undo_that_must_be_asked_about_waits_for_the_owner_over_a_kill(
    place: Path, answer: str
) -> None:
    world = World(place, dict(TOOLS))
    (place / "policies").mkdir()
    (place / "policies" / "ask.cedar").write_text(
        '@id("q") @decide("ask") permit (principal, action == Action::"tool.run", resource == Tool::"shop/cancel");'
    )
    with killed_at(world, place, "order after") as client:
        buy(client, place, "order")
    with daemon(place), owner(place) as client:
        first = wait_asked(client)
        assert "shop/cancel" in first.resource
    with daemon(place), owner(place) as client:
        assert wait_asked(client).id == first.id, "the same question, not a second one"
        assert world.steps == ["order before", "order after"], "nothing is done unasked"
        client.approvals.answer(first.id, answer)
        said = end_of(client)[1]
        assert len(client.approvals.list(include_over=True)) == 1
    assert len(world.lines("effects")) == 1
    if answer == "once":
        assert said == "done"
        assert world.steps[2:] == ["cancel before", "cancel after", "order before", "order after"]
    else:
        assert "may have happened, and is not done again" in said
        assert world.steps == ["order before", "order after"]


def wait_asked(client: Client) -> Approval:
    after = client.journal.events(is_waiting=False).last
    while not (found := client.approvals.list()):
        after = client.journal.events(after=after, deadline_s=60).last
    return found[0]


@pytest.mark.parametrize(
    ("options", "effects", "text"),
    [
        ({}, 2, "done"),
        ({"believes_hints": False, "effect": "compensable"}, 1, "is not done again"),
        ({"believes_hints": False}, 1, "may have happened"),
    ],
)
def test_a_call_of_an_mcp_server_that_was_cut_off_is_made_again_if_its_hint_is_believed(
    place: Path, options: dict[str, object], effects: int, text: str
) -> None:
    world = World(place, {})
    program_of_server = Path(__file__).parent / "tools" / "mcp" / "programs" / "shop.py"
    server = {
        "command": sys.executable,
        "args": [str(program_of_server), str(world.folder)],
        "read": sys.path[1:],
        "write": [str(world.folder)],
        **options,
    }
    knobs = {"AIOS_MCP_SERVERS": json.dumps({"shop": server})}
    is_final = options == {"believes_hints": False}
    with killed_at(world, place, "put after", knobs) as client:
        buy(client, place, "put")
    with daemon(place, knobs), owner(place) as client:
        if is_final:
            question = wait_asked(client)
            assert question.choices == ("again", "done", "fresh", "end")
            client.approvals.answer(question.id, "done")
        assert text in end_of(client)[1]
    assert world.lines("effects") == ["tea"] * effects


CRASHING = """\
    here = Path(os.environ["HERE"])
    client.files.append("log.txt", "begun\\n")
    said = client.tools.run("make", {"what": "it"}).text
    client.exit(0, said)
"""


async def test_a_program_that_crashed_in_a_call_has_it_undone_and_made_again(home: Path) -> None:
    done, keys = list[str](), list[str]()

    async def act(job: Job) -> Outcome:
        done.append(job.text("what"))
        keys.append(job.text("key"))
        if len(keys) == 1:
            assert job.run.process.os_pid is not None
            os.kill(job.run.process.os_pid, signal.SIGKILL)
            await anyio.sleep_forever()
        return Outcome("made")

    async def undo(job: Job) -> Outcome:
        assert job.text("key") == keys[0]
        done.remove(job.text("what"))
        return Outcome("")

    async with booted(home) as (kernel, client):
        parts = {"what": string("what"), "key": string("of the call")}
        kernel.tools.install([
            make("make", "Make it.", act, parameters=parts, traits=Traits("compensable", undo="unmake", key="key")),
            make("unmake", "Unmake it.", undo, parameters=parts, traits=Traits("compensable", key="key")),
        ])  # fmt: skip
        env = {"HERE": str(work(home) / "here")}
        spawned = await client.spawn(program(home, CRASHING), restart=ONCE, cwd=work(home), env=env)
        end = (await client.wait(spawned.pid)).exit
        assert (end.status, end.result, done) == (0, "made", ["it"])
        assert len(set(keys)) == len(keys) == 2
        (shown,) = await client.tools.describe("make")
        assert "key" not in str(shown.parameters), "the kernel fills it in"


NESTING = """\
    here = Path(os.environ["HERE"])
    client.tools.run("files", {"action": "write", "path": "a.txt", "text": "x"})
    client.tools.run("memory", {"action": "remember", "text": "it is x"})
    if not here.exists():
        here.touch()
        os._exit(3)
    client.tools.run("files", {"action": "append", "path": "a.txt", "text": "y"})
    client.exit(0, client.files.read("a.txt").decode() + str(len(list(client.memory.notes()))))
"""


async def test_a_program_that_used_tools_of_the_kernel_goes_on_where_it_was(home: Path) -> None:
    async with booted(home) as (_, client):
        env = {"HERE": str(work(home) / "here")}
        spawned = await client.spawn(program(home, NESTING), restart=ONCE, cwd=work(home), env=env)
        end = (await client.wait(spawned.pid)).exit
        assert (end.status, end.result) == (0, "xy1")


APPENDING = """\
    client.tools.run("files", {"action": "append", "path": "a.txt", "text": "x"})
    client.exit(0, client.files.read("a.txt").decode())
"""


async def test_a_tool_that_acts_by_calls_is_told_what_they_brought(home: Path) -> None:
    async with booted(home) as (kernel, client):
        (files,) = [
            each for each in kernel.tools._registry.visible(kernel.init) if each.name == "files"
        ]
        body, n_runs = files.body, 0

        async def cut_off(job: Job) -> Outcome:
            nonlocal n_runs
            n_runs += 1
            outcome = await body(job)
            if n_runs == 1:
                assert job.run.process.os_pid is not None
                os.kill(job.run.process.os_pid, signal.SIGKILL)
                await anyio.sleep_forever()
            return outcome

        files.body = cut_off
        spawned = await client.spawn(program(home, APPENDING), restart=ONCE, cwd=work(home))
        end = (await client.wait(spawned.pid)).exit
        assert (end.status, end.result, n_runs) == (0, "x", 2)


SERVING = """\
    import aios

    @aios.tool(effect="reversible")
    def greet(name: str) -> str:
        "Greet."
        return f"hello {name}"

    client.tools.serve(greet)
"""


async def test_what_a_program_offers_is_there_again_when_it_has_been_brought_back(
    home: Path,
) -> None:
    async with booted(home) as (_, client):
        await client.spawn(program(home, SERVING), restart=ONCE, cwd=work(home))
        assert await greeted(client) == "hello Ann"
    async with booted(home) as (_, client):
        assert await greeted(client) == "hello Ann"


async def greeted(client: AsyncClient) -> str:
    while "agent/greet" not in [each.name for each in await client.tools.list()]:
        await anyio.sleep(0.02)
    return (await client.tools.run("agent/greet", {"name": "Ann"})).text


@pytest.mark.parametrize(
    ("traits", "why"),
    [
        ({"a": Traits("compensable", undo="a")}, "that is a circle: x/a -> x/a"),
        ({"a": Traits("compensable", undo="b")}, "x/b is no tool"),
        ({"a": Traits("compensable", undo="calculator")}, "x/calculator is no tool"),
        (
            {"a": Traits("compensable", undo="b"), "b": Traits("pure")},
            "x/b says that it does nothing",
        ),
        (
            {"a": Traits("compensable", undo="b"), "b": Traits("reversible", undo="a")},
            "that is a circle: x/a -> x/b -> x/a",
        ),
        (
            {"a": Traits("compensable", key="key")},
            "names the key key, which is none of its parameters",
        ),
    ],
)
async def test_an_undo_that_cannot_be_is_refused(
    home: Path, traits: dict[str, Traits], why: str
) -> None:
    async with booted(home) as (kernel, _):

        async def offer(gate: LocalGate) -> str:
            tools = tuple(ToolDeclaration(name, traits=each) for name, each in traits.items())
            try:
                await gate.call(ToolRegister(tools=tools))
            except InvalidCall as error:
                return error.message
            return "taken"

        pid = kernel.spawn_task("x", offer)
        assert why in (await kernel.table.get(pid).wait_ended()).result


@pytest.mark.parametrize("effect", ["pure", "irreversible"])
def test_what_does_nothing_or_is_final_has_no_undo(effect: EffectName) -> None:
    with pytest.raises(ValueError, match="`undo` needs"):
        Traits(effect, undo="b")
