"""A daemon that is killed again and again while its agents work: in the end all is as if nothing had happened.

`AIOS_TEST_CRASHES=1000` kills it so often, in as many runs as that takes.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aios.abi.types import ProcessInfo, State
from aios.sdk.blocking import Client, connect
from aios.sdk.discovery import find_kernel

N_AGENTS = 10
N_STEPS = 12
LONGEST_S = 120.0
N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "4"))
CRASHES_A_RUN = 4

MANIFEST = """\
name = "worker"
[restart]
policy = "on-failure"
"""
WORKER = """\
import sys, time
from aios.sdk.blocking import connect

me, n_steps = sys.argv[1], int(sys.argv[2])
with connect() as client:
    pid, stamps = client.getpid().pid, []
    for step in range(n_steps):
        text = client.chat(f"step {step} of {me}", max_tokens=4).text
        stamp = f"{step} {client.repeatable.uuid()} {len(text)}"
        stamps.append(stamp)
        client.files.append(f"/shared/{me}.txt", (stamp + "\\n").encode())
        client.memory.remember(f"{me} {stamp}", scope="shared")
        client.mail.send(pid, f"note {step}")
        assert client.mail.receive(deadline_s=60).body == f"note {step}"
        client.mail.send(1, f"{me} {step}")
    client.exit(0, "|".join(stamps))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aios-r-", dir="/tmp") as folder:
        yield Path(folder)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_")}
    return {
        **kept,
        "AIOS_HOME": str(home),
        "AIOS_CONFIG": os.devnull,
        "AIOS_ENGINE_KIND": "scripted",
        "AIOS_SERVER_PORT": "0",
        "AIOS_MEMORY_EMBEDDER": "none",
    }


@contextmanager
def daemon(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon, killed with all that it started when the block is left."""
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aios.cli.main", "serve"],
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        end_s = time.monotonic() + LONGEST_S
        while (address := find_kernel(home)) is None or address.os_pid != process.pid:
            assert process.poll() is None, (home / "daemon.log").read_text()
            assert time.monotonic() < end_s, "the daemon did not begin in time"
            time.sleep(0.02)  # noqa: TID251 - another process is waited for
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def owner(home: Path) -> Iterator[Client]:
    address = find_kernel(home)
    assert address is not None
    with connect(address.urls[0], (home / "token").read_text().strip()) as client:
        yield client


def workers(client: Client) -> list[ProcessInfo]:
    return [each for each in client.ps(include_ended=True) if each.name.startswith("worker")]


def wait_done(home: Path, n: int) -> list[ProcessInfo]:
    end_s = time.monotonic() + LONGEST_S
    with owner(home) as client:
        while True:
            found = workers(client)
            if len(found) == n and all(each.state is State.EXITED for each in found):
                return found
            assert time.monotonic() < end_s, (found, (home / "daemon.log").read_text())
            time.sleep(0.05)  # noqa: TID251 - another process is waited for


def said_by(client: Client, process: ProcessInfo) -> str:
    with client.logs(process.pid) as lines:
        return "\n".join(line.text for line in lines)


def check(client: Client, found: list[ProcessInfo], n_steps: int) -> None:
    """Nothing that was acknowledged is lost, nothing was done twice, and every result is right."""
    for me, process in enumerate(found):
        assert process.exit is not None
        assert process.exit.status == 0, (process, said_by(client, process))
        stamps = process.exit.result.split("|")
        assert [int(stamp.split()[0]) for stamp in stamps] == list(range(n_steps))
        assert client.files.read(f"/shared/{me}.txt").decode().splitlines() == stamps
        notes = [note.text for note in client.memory.notes() if note.text.startswith(f"{me} ")]
        assert notes == [f"{me} {stamp}" for stamp in stamps]
    letters = [letter.body for letter in client.mail.take(limit=1000).letters]
    for me in range(len(found)):
        mine = [body for body in letters if body.split()[0] == str(me)]
        assert mine == [f"{me} {step}" for step in range(n_steps)]
    assert len(letters) == len(found) * n_steps


@pytest.mark.parametrize("seed", range((N_CRASHES + CRASHES_A_RUN - 1) // CRASHES_A_RUN))
def test_agents_survive_kills_of_their_kernel(home: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - no secret
    program = home / "worker"
    program.mkdir()
    (program / "agent.toml").write_text(MANIFEST)
    (program / "main.py").write_text(WORKER)
    with daemon(home) as process, owner(home) as client:
        for me in range(N_AGENTS):
            client.spawn(str(program), str(me), str(N_STEPS))
        time.sleep(draw.uniform(0.3, 1.5))  # noqa: TID251 - the moment of the crash is the point
        process.send_signal(signal.SIGKILL)
    for _ in range(min(CRASHES_A_RUN, N_CRASHES) - 1):
        with daemon(home) as process:
            time.sleep(draw.uniform(0.3, 2.5))  # noqa: TID251 - as above
            process.send_signal(signal.SIGKILL)
    with daemon(home):
        with owner(home) as client:
            n_alive = sum(each.state is not State.EXITED for each in workers(client))
        found = wait_done(home, N_AGENTS)
        with owner(home) as client:
            check(client, found, N_STEPS)
            told = [said_by(client, each) for each in found]
            assert n_alive == 0 or any("is where it was" in text for text in told), told
