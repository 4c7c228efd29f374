"""Mail between eight programs while they and their kernel are killed: no letter is lost, doubled or out of order.

`AIOS_TEST_MAILS=10000` exchanges so many, and kills until all of them have arrived.
"""

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.kernel.test_resume import daemon, home, owner

from aios.abi.types import ProcessInfo, State
from aios.sdk.blocking import Client

__all__ = ("home",)

N_CLIENTS = 8
N_OTHERS = N_CLIENTS - 1
N_MAILS = int(os.environ.get("AIOS_TEST_MAILS", "200"))
N_EACH = -(-N_MAILS // (N_CLIENTS * N_OTHERS)) * N_OTHERS
"""Letters that each client sends, the same number to each other one; so each gets as many."""
LONGEST_S = 120.0 + N_MAILS / 10

MANIFEST = """\
name = "client"
[restart]
policy = "on-failure"
max_restarts = 1000
delay_s = 0.01
"""
CLIENT = """\
import json, sys
from aios.sdk.blocking import connect

me, n_each = int(sys.argv[1]), int(sys.argv[2])
with connect() as client:
    pids = json.loads(client.mail.receive(sender=1).body)
    seen = []
    for k in range(n_each):
        to = pids[(me + 1 + k % (len(pids) - 1)) % len(pids)]
        client.mail.send(to, f"{me} {k}")
        seen += [letter.body for letter in client.mail.take().letters]
    while len(seen) < n_each:
        seen.append(client.mail.receive().body)
    client.exit(0, "|".join(seen))
"""


def expected(receiver: int) -> dict[int, list[int]]:
    """The letters that a client is to get, by sender, in the order in which they were sent."""
    found: dict[int, list[int]] = {me: [] for me in range(N_CLIENTS) if me != receiver}
    for sender, numbers in found.items():
        numbers += [k for k in range(N_EACH) if (sender + 1 + k % N_OTHERS) % N_CLIENTS == receiver]
    return found


def check_history(client: Client, pids: list[int]) -> None:
    rows: dict[int, ProcessInfo] = {row.pid: row for row in client.ps(include_ended=True)}
    for receiver, pid in enumerate(pids):
        end = rows[pid].exit
        assert end is not None
        assert end.status == 0, rows[pid]
        got: dict[int, list[int]] = {sender: [] for sender in expected(receiver)}
        for body in end.result.split("|"):
            sender, number = map(int, body.split())
            got[sender].append(number)
        assert got == expected(receiver), f"the history of client {receiver}"


def test_no_letter_is_lost_doubled_or_out_of_order_whatever_is_killed(home: Path) -> None:
    draw = random.Random(N_MAILS)  # noqa: S311 - no secret
    folder = home / "client"
    folder.mkdir()
    (folder / "agent.toml").write_text(MANIFEST)
    (folder / "main.py").write_text(CLIENT)
    pids, end_s, n_kills = list[int](), time.monotonic() + LONGEST_S, [0, 0]
    is_over = False
    while not is_over:
        with daemon(home), owner(home) as client:
            if not pids:
                pids += [
                    client.spawn(str(folder), str(me), str(N_EACH)).pid for me in range(N_CLIENTS)
                ]
                for pid in pids:
                    client.mail.send(pid, json.dumps(pids))
            is_last = n_kills[0] >= 2 and N_MAILS <= 1_000
            life_s = LONGEST_S if is_last else draw.uniform(0.5, 2.0 + n_kills[0])
            is_over = kill_clients(client, pids, draw, until_s=time.monotonic() + life_s, n=n_kills)
            if is_over:
                check_history(client, pids)
            n_kills[0] += not is_over
        assert time.monotonic() < end_s, f"not all letters came in time; {n_kills} kills"
    assert n_kills[0]
    said = (
        f"{N_CLIENTS * N_EACH} letters, {n_kills[0]} kills of the kernel, {n_kills[1]} of clients"
    )
    print(said)  # noqa: T201 - `pytest -s` shows what a long run did


def kill_clients(
    client: Client, pids: list[int], draw: random.Random, *, until_s: float, n: list[int]
) -> bool:
    """Kill clients now and then, until all have ended or it is time to kill their kernel. Returns: whether all have ended."""
    while time.monotonic() < until_s:
        rows = [row for row in client.ps(include_ended=True) if row.pid in pids]
        if all(row.state is State.EXITED for row in rows):
            return True
        pause_s = draw.uniform(
            0.05, 0.5 + n[1] / 100
        )  # a longer past takes longer to go through again
        time.sleep(pause_s)  # noqa: TID251 - the moment of the kill is the point
        if n[1] < 3 or N_MAILS > 1_000:
            n[1] += kill_one(draw.choice(rows))
    return False


def kill_one(row: ProcessInfo) -> int:
    """End the program behind a process as if it had crashed. Returns: how many were killed."""
    if row.os_pid is not None and row.exit is None:
        with suppress(ProcessLookupError):
            os.kill(row.os_pid, signal.SIGKILL)
            return 1
    return 0
