"""A daemon that is killed again and again while its agents work: in the end all is as if nothing had happened.

Ten agents think by an endpoint outside of the kernel, call a tool with an effect on the world, and use files, memory and mail.
`AIOS_TEST_CRASHES=1000` kills their daemon so often, in as many runs as that takes; `pytest -s` shows what was counted.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType

import apsw
import pytest
from msgspec.structs import replace
from tests.kernel.endpoint import MODEL, Planner, planner
from tests.warm import start_daemon

from aios.abi.budget import Limits
from aios.abi.types import Pid, ProcessInfo, State
from aios.config import Home
from aios.errors import AiosError
from aios.kernel.journal.tables import last_seqs
from aios.kernel.residents import read_residents, save
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.blocking import Client, connect
from aios.sdk.discovery import find_kernel

N_AGENTS = 10
N_STEPS = 5
LONGEST_S = 240.0
LONGEST_LIFE_S = 10.0
N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "3"))
CRASHES_A_RUN = 4 if N_CRASHES <= 8 else 10
N_STEPS_A_CRASH = 2
NOTHING: Mapping[str, str] = MappingProxyType({})

MANIFEST = """\
name = "worker"
[restart]
policy = "on-failure"
"""
WORKER = """\
import json, sys
from aios.abi.types import Message, Role, ToolSpec
from aios.errors import OutcomeUnknown
from aios.sdk.blocking import connect

me, n_steps = sys.argv[1], int(sys.argv[2])
post = ToolSpec("post", "Post a line.", {"type": "object"})

def act(client, call):
    try:
        return client.tools.run("ledger/post", call.arguments).text
    except OutcomeUnknown:
        while True:
            try:
                return client.tools.run("ledger/mend", call.arguments).text
            except OutcomeUnknown:
                pass

with connect() as client:
    pid, stamps = client.getpid().pid, []
    talk = client.contexts.open()
    for step in range(n_steps):
        call = talk.chat(f"step {step} of {me}", tools=[post]).tool_calls[0]
        said = Message(Role.TOOL, act(client, call), tool_call_id=call.id)
        text = talk.chat([said], tools=[post]).text
        stamp = f"{step} {client.repeatable.uuid()} {text}"
        stamps.append(stamp)
        client.files.append(f"/shared/{me}.txt", (stamp + "\\n").encode())
        client.memory.remember(f"{me} {stamp}", scope="shared")
        client.mail.send(pid, f"note {step}")
        assert client.mail.receive(deadline_s=60).body == f"note {step}"
        client.mail.send(1, f"{me} {step}")
    told = [[m.role.value, m.text(), [c.id for c in m.tool_calls], m.tool_call_id] for m in talk.messages()]
    client.exit(0, json.dumps([stamps, told]))
"""
TOOL = """\
name = "ledger/{name}"
description = "Post a line{how}."
command = ["sh", "-c", '{test} printf "%s\\n" "$1" >> "$2"', "sh", "{{line}}", "{ledger}"]
write = ["{folder}"]
[parameters]
type = "object"
required = ["line"]
properties.line = {{ type = "string" }}
[traits]
effect = "compensable"
writes = ["ledger"]
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("r") as folder:
        yield folder


def environment(home: Path, more: Mapping[str, str] = NOTHING) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_")}
    return {
        **kept,
        "AIOS_HOME": str(home),
        "AIOS_CONFIG": os.devnull,
        "AIOS_ENGINE_KIND": "scripted",
        "AIOS_SERVER_PORT": "0",
        "AIOS_MEMORY_EMBEDDER": "none",
        **more,
    }


@contextmanager
def daemon(home: Path, more: Mapping[str, str] = NOTHING) -> Iterator[BaseProcess]:
    """A daemon, killed with all that it started when the block is left."""
    process = start_daemon(environment(home, more), home / "daemon.log")
    try:
        end_s = time.monotonic() + LONGEST_S
        while (address := find_kernel(home)) is None or address.os_pid != process.pid:
            assert process.is_alive(), (home / "daemon.log").read_text()
            assert time.monotonic() < end_s, "the daemon did not begin in time"
            time.sleep(0.02)  # noqa: TID251 - another process is waited for
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


@contextmanager
def owner(home: Path) -> Iterator[Client]:
    address = find_kernel(home)
    assert address is not None
    with connect(address.urls[0], (home / "token").read_text().strip()) as client:
        yield client


def workers(client: Client) -> list[ProcessInfo]:
    return [each for each in client.ps(include_ended=True) if each.name.startswith("worker")]


def wait_done(client: Client, n: int) -> list[ProcessInfo]:
    end_s = time.monotonic() + LONGEST_S
    while True:
        found = workers(client)
        if len(found) == n and all(each.state is State.EXITED for each in found):
            return found
        assert time.monotonic() < end_s, "\n".join(trouble_of(client, each) for each in found)
        time.sleep(0.05)  # noqa: TID251 - another process is waited for


def trouble_of(client: Client, process: ProcessInfo) -> str:
    """How a process is that is not done in time."""
    last = client.journal.read(process.pid, after=-3, is_full=True).records
    return f"{process}\n{said_by(client, process)}\n{last}"


def said_by(client: Client, process: ProcessInfo) -> str:
    with client.logs(process.pid) as lines:
        return "\n".join(line.text for line in lines)


def set_up(home: Path) -> tuple[Path, Path]:
    """The program of the agents, and what the tool writes to."""
    program, tools, world = home / "worker", home / "tools", home / "world"
    for folder in (program, tools, world):
        folder.mkdir()
    (program / "agent.toml").write_text(MANIFEST)
    (program / "main.py").write_text(WORKER)
    ledger = world / "ledger"
    ledger.touch()
    seen = 'grep -qxF "$1" "$2" ||'
    for name, how, test in (("post", "", ""), ("mend", " that may be there", seen)):
        text = TOOL.format(name=name, how=how, test=test, ledger=ledger, folder=world)
        (tools / f"{name}.toml").write_text(text)
    return program, ledger


def children_of(pid: int) -> list[int]:
    """The programs of a daemon, as far as they can be seen."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def pull_the_plug(process: BaseProcess, *, with_children: bool) -> None:
    """Kill a daemon, with its programs or without."""
    assert process.pid is not None
    children = children_of(process.pid) if with_children else []
    process.kill()
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def witness(client: Client, n_acknowledged: int, is_time: Callable[[], bool]) -> int:
    """Write numbers until it is time or the kernel has gone. Returns: how many were acknowledged, those before included."""
    with suppress(AiosError):
        while not is_time():
            client.files.append("/shared/witness.txt", f"{n_acknowledged}\n".encode())
            n_acknowledged += 1
            time.sleep(0.02)  # noqa: TID251 - the agents are to work, too
    return n_acknowledged


def work_of_one_life(server: Planner, draw: random.Random) -> Callable[[], bool]:
    """When a kernel is to be killed: after a moment, or after so many answers, or when that takes too long on a slow machine."""
    n_asked, now_s = len(server.asked) + draw.randrange(30), time.monotonic()
    if draw.random() < 0.3:
        return lambda: time.monotonic() > now_s + draw.uniform(0.0, 1.0)
    return lambda: len(server.asked) > n_asked or time.monotonic() > now_s + LONGEST_LIFE_S


def check_witness(client: Client, n_acknowledged: int) -> int:
    """All that was acknowledged is there once, and of what was not, at most the last. Returns: how many there are."""
    lines = client.files.read("/shared/witness.txt").decode().split() if n_acknowledged else []
    assert lines == [str(number) for number in range(len(lines))]
    assert n_acknowledged <= len(lines) <= n_acknowledged + 1
    return len(lines)


def check(client: Client, found: list[ProcessInfo], n_steps: int, *, ledger: Path) -> None:
    """Nothing that was acknowledged is lost, nothing was done twice, every transcript is whole, and every result is right."""
    letters = [letter.body for letter in client.mail.take(limit=1000).letters]
    lines = ledger.read_text().splitlines()
    for me, process in enumerate(found):
        assert process.exit is not None
        assert process.exit.status == 0, (process, said_by(client, process))
        stamps, told = json.loads(process.exit.result)
        assert [int(stamp.split()[0]) for stamp in stamps] == list(range(n_steps))
        assert told == transcript(me, n_steps)
        assert client.files.read(f"/shared/{me}.txt").decode().splitlines() == stamps
        notes = [note.text for note in client.memory.notes() if note.text.startswith(f"{me} ")]
        assert notes == [f"{me} {stamp}" for stamp in stamps]
        mine = [f"{me} {step}" for step in range(n_steps)]
        assert [body for body in letters if body.split()[0] == str(me)] == mine
        assert [line for line in lines if line.split()[0] == str(me)] == mine
    assert len(letters) == len(lines) == len(found) * n_steps


def transcript(me: int, n_steps: int) -> list[list[object]]:
    """What an agent and its model are to have said."""
    told: list[list[object]] = []
    for step in range(n_steps):
        call_id = f"call-{step}"
        told += [
            ["user", f"step {step} of {me}", [], ""],
            ["assistant", "", [call_id], ""],
            ["tool", "", [], call_id],
            ["assistant", f"step {step} is done", [], ""],
        ]
    return told


def check_redone(server: Planner, n_steps: int) -> int:
    """No agent asks again for what came before its last answer. Returns: how many answers were asked for again."""
    for me in range(N_AGENTS):
        asked = [2 * step + half for who, step, half in server.asked if who == str(me)]
        assert sorted(set(asked)) == list(range(2 * n_steps))
        assert asked == sorted(asked), f"agent {me} redid more than a turn: {asked}"
    return len(server.asked) - 2 * N_AGENTS * n_steps


@pytest.mark.parametrize("seed", range((N_CRASHES + CRASHES_A_RUN - 1) // CRASHES_A_RUN))
def test_agents_survive_kills_of_their_kernel(home: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - no secret
    program, ledger = set_up(home)
    n_kills = min(CRASHES_A_RUN, N_CRASHES)
    n_steps, n_acknowledged = N_STEPS + N_STEPS_A_CRASH * max(0, n_kills - 3), 0
    with planner() as server:
        knobs = {"AIOS_ENGINE_KIND": "openai", "AIOS_ENGINE_BASE_URL": server.url}
        knobs["AIOS_ENGINE_MODEL"] = MODEL
        for life in range(n_kills):
            with daemon(home, knobs) as process:
                with owner(home) as client:
                    n_acknowledged = check_witness(client, n_acknowledged)
                    for me in range(N_AGENTS * (life == 0)):
                        client.spawn(str(program), str(me), str(n_steps))
                    is_time = work_of_one_life(server, draw)
                    n_acknowledged = witness(client, n_acknowledged, is_time)
                pull_the_plug(process, with_children=draw.random() < 0.5)
        with daemon(home, knobs), owner(home) as client:
            check_witness(client, n_acknowledged)
            n_alive = sum(each.state is not State.EXITED for each in workers(client))
            found = wait_done(client, N_AGENTS)
            check(client, found, n_steps, ledger=ledger)
            told = [said_by(client, each) for each in found]
            assert n_alive == 0 or any("is where it was" in text for text in told), told
        n_redone = check_redone(server, n_steps)
    print(  # noqa: T201 - `pytest -s` shows what a long run did
        f"{n_kills} kills, {n_acknowledged} writes acknowledged, {len(server.asked)} answers, {n_redone} asked for again"
    )


ORPHAN = """\
import sys
from aios.sdk.blocking import connect

with connect() as client:
    if sys.argv[1:]:
        client.spawn(sys.path[0], *sys.argv[2:], name=sys.argv[1])
    else:
        client.mail.receive()
"""


def test_who_is_left_behind_stays_under_the_limits_also_under_the_next_kernel(
    home: Path, tmp_path: Path
) -> None:
    """Those in between have ended, and are remembered no longer than somebody hangs on them."""
    (tmp_path / "agent.toml").write_text(MANIFEST)
    (tmp_path / "main.py").write_text(ORPHAN)
    knobs = {"AIOS_KERNEL_MAX_EXITED": "0"}
    with daemon(home, knobs), owner(home) as client:
        limits = Limits(tool_calls=5, children=3)
        client.spawn(str(tmp_path), "middle", "last", budget=limits, name="first")
        while [each.name for each in client.ps()] != ["init", "last"]:
            time.sleep(0.05)  # noqa: TID251 - other programs are waited for
        last = client.ps()[-1].pid
        before = client.budget(last).left
        assert (before.tool_calls, before.children) == (5, 2)
        client.files.write("/shared/last", b"")  # that they have ended is on disk before it
    for _ in range(2):
        with daemon(home, knobs), owner(home) as client:
            assert client.budget(last).left == before
    with daemon(home, knobs), owner(home) as client:
        client.kill(last)
        assert [each.name for each in client.ps(include_ended=True)] == ["init"]


SPENDER = """\
from aios.sdk.blocking import connect

with connect() as client:
    while True:
        for _ in range(int(client.mail.receive().body)):
            client.tools.run("clock")
        client.mail.send(1, "done")
"""


def test_forks_stay_under_the_limits_of_their_source_also_under_the_next_kernel(
    home: Path, tmp_path: Path
) -> None:
    """It has ended, and all of them together have what was left to it."""
    (tmp_path / "agent.toml").write_text(MANIFEST)
    (tmp_path / "main.py").write_text(SPENDER)
    knobs = {"AIOS_KERNEL_MAX_EXITED": "0"}
    with daemon(home, knobs), owner(home) as client:
        source = client.spawn(str(tmp_path), budget=Limits(tool_calls=5)).pid
        client.mail.send(source, "0")
        client.mail.receive(sender=source, deadline_s=LONGEST_S)
        first, second = (client.journal.fork(source).pid for _ in range(2))
        client.kill(source)
        client.files.write("/shared/last", b"")  # that it has ended is on disk before it
    with daemon(home, knobs), owner(home) as client:
        client.mail.send(first, "3")
        client.mail.receive(sender=first, deadline_s=LONGEST_S)
        assert client.budget(second).left.tool_calls == 2
        for pid in (first, second):
            client.kill(pid)
        assert [each.name for each in client.ps(include_ended=True)] == ["init"]


def test_who_was_asked_to_end_is_not_started_by_the_next_kernel(home: Path) -> None:
    program = home / "program"
    program.mkdir()
    (program / "agent.toml").write_text(MANIFEST)
    (program / "main.py").write_text(
        "import signal\nfrom aios.sdk.blocking import connect\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it cleans up for long\n"
        "with connect() as client:\n    client.mail.send(1, 'here')\n    client.mail.receive()\n"
    )
    with daemon(home) as process, owner(home) as client:
        pid = client.spawn(str(program)).pid
        assert client.mail.receive(sender=pid, deadline_s=LONGEST_S).body == "here"
        client.signal(pid, "TERM")
        pull_the_plug(process, with_children=False)
    with daemon(home), owner(home) as client:
        (found,) = workers(client)
        assert found.exit is not None
        assert (found.exit.status, found.exit.reason) == (143, "terminated")


def test_what_was_cut_off_as_it_began_anew_has_no_children_of_its_life_before(home: Path) -> None:
    work = home / "work"
    program, child = home / "program", work / "child"
    for folder, policy in ((program, "always"), (child, "on-failure")):
        folder.mkdir(parents=True)
        (folder / "agent.toml").write_text(MANIFEST.replace("on-failure", policy))
    (child / "main.py").write_text("import time\ntime.sleep(600)\n")
    (program / "main.py").write_text(
        "from aios.sdk.blocking import connect\nwith connect() as client:\n"
        f"    client.mail.send(1, str(client.spawn({str(child)!r}).pid))\n    client.mail.receive()\n"
    )
    with daemon(home) as process, owner(home) as client:
        pid = client.spawn(str(program), cwd=work).pid
        first = client.mail.receive(sender=pid, deadline_s=LONGEST_S).body
        pull_the_plug(process, with_children=False)
    with closing(apsw.Connection(str(Home(home).database))) as connection, connection:
        row = next(each for each in read_residents(connection) if each.pid == pid)
        assert row.launched is not None
        launched = replace(row.launched, first_seq=last_seqs(connection)[pid] + 1)
        save(connection, replace(row, launched=launched))  # as its beginning anew has it on disk
    with daemon(home), owner(home) as client:
        second = client.mail.receive(sender=pid, deadline_s=LONGEST_S).body
        ends = {each.pid: each.exit for each in client.ps(include_ended=True)}
    assert ends[Pid(int(second))] is None
    end = ends[Pid(int(first))]
    assert end is not None
    assert end.reason == f"process {pid} began anew"
